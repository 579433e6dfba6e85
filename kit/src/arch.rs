//! What the machine knows of the processor: the marker, and three kinds of instruction.
//!
//! This file fences in the one marker instruction.
#![allow(unsafe_code)]

/// Why single steps are not offered on this processor, if they are not.
pub(crate) const UNSUPPORTED: Option<&str> = if cfg!(target_arch = "x86_64") {
    None
} else {
    Some("single steps are known on x86_64 only")
};

/// Where ptrace finds the address of the next instruction (`regs.rip` in the user area).
pub(crate) const NEXT_INSTRUCTION: u64 = 16 * 8;

/// Where ptrace finds the first debug register, which takes an address.
pub(crate) const BREAKPOINT_ADDRESS: u64 = 848;

/// Where ptrace finds the debug register that switches breakpoints on and off.
pub(crate) const BREAKPOINT_CONTROL: u64 = BREAKPOINT_ADDRESS + 7 * 8;

/// The first breakpoint on, for execution, in this thread only.
pub(crate) const BREAKPOINT_ON: u64 = 1;

#[cfg(target_arch = "x86_64")]
const _: () = {
    assert!(std::mem::offset_of!(libc::user, u_debugreg) == 848);
    assert!(std::mem::offset_of!(libc::user_regs_struct, rip) == 16 * 8);
};

/// Stops the process for its tracer.
#[inline(never)]
pub(crate) fn marker() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a breakpoint changes no register and no memory. Without a tracer it ends the process.
    unsafe {
        std::arch::asm!("int3");
    }
}

/// What an instruction is to the stepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// One step, whatever it does.
    Plain,
    /// The whole system call is one step, and may sleep.
    SystemCall,
    /// A repeated string instruction of this many bytes: the processor stops after each repetition.
    Repeated(u8),
}

/// Tells an instruction by its first eight bytes.
pub(crate) fn decode(code: [u8; 8]) -> Instruction {
    match code {
        [0x0f, 0x05, ..] => Instruction::SystemCall,
        [0xf2 | 0xf3, op, ..] if is_string(op) => Instruction::Repeated(2),
        [0xf2 | 0xf3, 0x40..=0x4f, op, ..] if is_string(op) => Instruction::Repeated(3),
        [0x66, 0xf2 | 0xf3, op, ..] if is_string(op) => Instruction::Repeated(3),
        _ => Instruction::Plain,
    }
}

/// `movs`, `cmps`, `stos`, `lods` and `scas`.
fn is_string(op: u8) -> bool {
    matches!(op, 0xa4..=0xa7 | 0xaa..=0xaf)
}

/// What was found at each address. The children are forks of one process, so that their code lies
/// at the same addresses.
#[derive(Debug)]
pub(crate) struct CodeMap {
    entries: Vec<(u64, Instruction)>,
}

impl CodeMap {
    const ENTRIES: usize = 1 << 12;

    pub(crate) fn new() -> Self {
        Self {
            entries: vec![(0, Instruction::Plain); Self::ENTRIES],
        }
    }

    /// The instruction at an address, looked up with `fetch` if it was not seen lately.
    pub(crate) fn at<E>(
        &mut self,
        address: u64,
        fetch: impl FnOnce() -> Result<[u8; 8], E>,
    ) -> Result<Instruction, E> {
        let index = usize::try_from(address % Self::ENTRIES as u64).expect("it is masked");
        let entry = &mut self.entries[index];
        if entry.0 != address {
            *entry = (address, decode(fetch()?));
        }
        Ok(entry.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(code: &[u8]) -> [u8; 8] {
        let mut all = [0x90; 8];
        all[..code.len()].copy_from_slice(code);
        all
    }

    #[test]
    fn instructions_are_told_apart() {
        assert_eq!(decode(bytes(&[0x0f, 0x05])), Instruction::SystemCall);
        assert_eq!(decode(bytes(&[0xf3, 0xa4])), Instruction::Repeated(2));
        assert_eq!(decode(bytes(&[0xf3, 0x48, 0xab])), Instruction::Repeated(3));
        // `pause` and `endbr64` carry the same prefix.
        assert_eq!(decode(bytes(&[0xf3, 0x90])), Instruction::Plain);
        assert_eq!(decode(bytes(&[0xf3, 0x0f, 0x1e, 0xfa])), Instruction::Plain);
        // `test al, imm` lies between the string instructions.
        assert_eq!(decode(bytes(&[0xf3, 0xa8])), Instruction::Plain);
    }

    #[test]
    fn code_map_fetches_once() {
        let mut map = CodeMap::new();
        let first: Result<_, ()> = map.at(0x1000, || Ok(bytes(&[0x0f, 0x05])));
        assert_eq!(first, Ok(Instruction::SystemCall));
        assert_eq!(map.at(0x1000, || Err(())), Ok(Instruction::SystemCall));
        assert_eq!(map.at(0x2000, || Err(())), Err(()));
    }
}
