//! What the checks of the house share: the source tree as tokens and remarks, and tables in Markdown.
#![allow(
    dead_code,
    reason = "each check is a crate of its own and uses its part"
)]

pub mod paths;
pub mod source;
pub mod table;
pub mod tree;

/// Fails with one sentence to a line if a check found anything.
pub fn expect_clean(rule: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "{rule}: {} broken\n  {}\n",
        findings.len(),
        findings.join("\n  ")
    );
}

/// Fails unless a check found `count` violations, each of which says every one of `words`.
///
/// This is how a planted violation shows that its check can fail, and that its sentence helps.
pub fn expect_caught(findings: &[String], count: usize, words: &[&str]) {
    assert_eq!(findings.len(), count, "found {findings:#?}");
    for finding in findings {
        for word in words {
            assert!(
                finding.contains(word),
                "`{finding}` does not mention `{word}`"
            );
        }
    }
}
