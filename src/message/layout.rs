//! The layout of a message: names, offsets and sizes, to be compared between programs.

use std::fmt;

use super::Message;

/// How the bytes of a [`Message`] are laid out.
///
/// Its [`describe`](Self::describe)d form stands in the segment beside each object, so that an
/// attaching program can compare it with its own, and a program that does not know the type can
/// still make sense of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The name of the type, without crate, module and parameters; empty for arrays and tuples.
    pub name: &'static str,
    /// Bytes that a value takes.
    pub size: usize,
    /// Number of bytes of which the address of a value is a multiple.
    pub align: usize,
    /// What the type is made of.
    pub shape: Shape,
}

/// What a [`Message`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A number or another type without parts.
    Primitive,
    /// A struct, with its fields in the order of the source.
    Struct(&'static [Field]),
    /// A tuple, with its members in the order of the source.
    Tuple(&'static [Field]),
    /// An array.
    Array {
        /// The layout of one element.
        element: &'static Layout,
        /// Number of elements.
        len: usize,
    },
    /// An enum without fields.
    Enum {
        /// The integer that stands in memory.
        repr: &'static Layout,
        /// The variants, in the order of the source.
        variants: &'static [Variant],
    },
}

/// A field of a struct or a member of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// Its name; a number in tuples and tuple structs.
    pub name: &'static str,
    /// Bytes between the start of the struct and the start of the field.
    pub offset: usize,
    /// The layout of its type.
    pub layout: &'static Layout,
}

/// A variant of an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub name: &'static str,
    /// Its discriminant.
    pub value: i128,
}

impl Field {
    /// A field of type `T` that stands `offset` bytes after the start of its struct.
    pub const fn of<T: Message>(name: &'static str, offset: usize) -> Self {
        Self {
            name,
            offset,
            layout: T::LAYOUT,
        }
    }
}

impl Variant {
    /// A variant with its discriminant.
    pub const fn new(name: &'static str, value: i128) -> Self {
        Self { name, value }
    }
}

impl Layout {
    /// The layout of a type without parts, such as a number.
    #[track_caller]
    pub const fn primitive<T>(name: &'static str) -> Self {
        require(size_of::<T>() > 0, "a type without size is no message");
        Self {
            name,
            size: size_of::<T>(),
            align: align_of::<T>(),
            shape: Shape::Primitive,
        }
    }

    /// The layout of the struct `T` with these fields.
    ///
    /// # Panics
    ///
    /// If the fields do not cover the struct. In a constant this is an error of the compiler.
    #[track_caller]
    pub const fn structure<T>(name: &'static str, fields: &'static [Field]) -> Self {
        assert_covered(size_of::<T>(), fields);
        Self {
            name,
            size: size_of::<T>(),
            align: align_of::<T>(),
            shape: Shape::Struct(fields),
        }
    }

    /// The layout of the tuple `T` with these members.
    ///
    /// # Panics
    ///
    /// If the members do not cover the tuple. In a constant this is an error of the compiler.
    #[track_caller]
    pub const fn tuple<T>(members: &'static [Field]) -> Self {
        assert_covered(size_of::<T>(), members);
        Self {
            name: "",
            size: size_of::<T>(),
            align: align_of::<T>(),
            shape: Shape::Tuple(members),
        }
    }

    /// The layout of the array `[T; N]`.
    ///
    /// # Panics
    ///
    /// If `N` is zero. In a constant this is an error of the compiler.
    #[track_caller]
    pub const fn array<T: Message, const N: usize>() -> Self {
        require(
            N > 0,
            "an array of length zero has no bytes and is no message",
        );
        Self {
            name: "",
            size: size_of::<[T; N]>(),
            align: align_of::<[T; N]>(),
            shape: Shape::Array {
                element: T::LAYOUT,
                len: N,
            },
        }
    }

    /// The layout of an enum without fields that is kept in memory as a `Repr`.
    ///
    /// # Panics
    ///
    /// If there is no variant. In a constant this is an error of the compiler.
    #[track_caller]
    pub const fn enumeration<Repr: Message>(
        name: &'static str,
        variants: &'static [Variant],
    ) -> Self {
        require(
            !variants.is_empty(),
            "an enum without variants has no values and is no message",
        );
        Self {
            name,
            size: size_of::<Repr>(),
            align: align_of::<Repr>(),
            shape: Shape::Enum {
                repr: Repr::LAYOUT,
                variants,
            },
        }
    }

    /// The layout as text: the same text if and only if the layouts agree.
    ///
    /// One line for the type and for each field, nested fields included, with offset, size and
    /// alignment in bytes, the path of the field and its type. Elements of an array are described
    /// once, at the place of the first (`[]`), and only if they have parts. An enum has a line for
    /// each variant with its discriminant. Names of types are without crate and module, so a struct
    /// that two programs include from one file has one description.
    ///
    /// ```
    /// use tombolo::Message;
    ///
    /// #[derive(Clone, Copy, Message)]
    /// #[repr(u32)]
    /// enum Unit { Celsius = 1, Kelvin }
    ///
    /// #[derive(Clone, Copy, Message)]
    /// #[repr(C)]
    /// struct Reading { at: u64, values: [f32; 3], unit: Unit }
    ///
    /// assert_eq!(Reading::LAYOUT.describe(), "\
    /// 0 24 8 . Reading
    /// 0 8 8 .at u64
    /// 8 12 4 .values [f32; 3]
    /// 20 4 4 .unit Unit: u32
    /// 20 4 4 .unit::Celsius = 1
    /// 20 4 4 .unit::Kelvin = 2
    /// ");
    /// ```
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// Whether the name of the type says all there is to say.
    fn is_plain(&self) -> bool {
        match self.shape {
            Shape::Primitive => true,
            Shape::Array { element, .. } => element.is_plain(),
            Shape::Struct(_) | Shape::Tuple(_) | Shape::Enum { .. } => false,
        }
    }

    /// Writes the lines of a part that stands at `offset` and is reached by `path`.
    fn write_lines(&self, f: &mut fmt::Formatter<'_>, offset: usize, path: &str) -> fmt::Result {
        let Self { size, align, .. } = self;
        let shown = if path.is_empty() { "." } else { path };
        writeln!(f, "{offset} {size} {align} {shown} {}", TypeName(self))?;
        match self.shape {
            Shape::Primitive => Ok(()),
            Shape::Array { .. } if self.is_plain() => Ok(()),
            Shape::Array { element, .. } => element.write_lines(f, offset, &format!("{path}[]")),
            Shape::Struct(fields) | Shape::Tuple(fields) => fields.iter().try_for_each(|field| {
                let path = format!("{path}.{}", field.name);
                field.layout.write_lines(f, offset + field.offset, &path)
            }),
            Shape::Enum { variants, .. } => variants.iter().try_for_each(|variant| {
                let Variant { name, value } = variant;
                writeln!(f, "{offset} {size} {align} {path}::{name} = {value}")
            }),
        }
    }
}

/// Prints what [`Layout::describe`] returns.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_lines(f, 0, "")
    }
}

/// Prints the type of a layout: `u32`, `[Point; 4]`, `(u64, f64)`, `Side: u8`.
struct TypeName<'a>(&'a Layout);

impl fmt::Display for TypeName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(layout) = self;
        match layout.shape {
            Shape::Primitive | Shape::Struct(_) => f.write_str(layout.name),
            Shape::Array { element, len } => write!(f, "[{}; {len}]", TypeName(element)),
            Shape::Enum { repr, .. } => write!(f, "{}: {}", layout.name, repr.name),
            Shape::Tuple(members) => {
                f.write_str("(")?;
                for (index, member) in members.iter().enumerate() {
                    let before = if index == 0 { "" } else { ", " };
                    write!(f, "{before}{}", TypeName(member.layout))?;
                }
                f.write_str(if members.len() == 1 { ",)" } else { ")" })
            }
        }
    }
}

/// Panics with `otherwise` unless something holds.
///
/// In a constant the compiler then shows the caller and not, as with `assert!`, the library's insides.
#[track_caller]
pub(super) const fn require(holds: bool, otherwise: &'static str) {
    if !holds {
        panic!("{}", otherwise);
    }
}

/// Panics if fields, none of which overlaps another, leave a byte of their struct uncovered.
#[track_caller]
const fn assert_covered(size: usize, fields: &[Field]) {
    require(size > 0, "a type without size is no message");
    let mut covered = 0;
    let mut index = 0;
    while index < fields.len() {
        covered += fields[index].layout.size;
        index += 1;
    }
    require(
        covered == size,
        "there is padding between or after the fields: order them so that there is none, or write \
         each gap as a field of its own",
    );
}

#[cfg(test)]
mod tests {
    use crate::Message;
    use crate::message::{Maybe, Span, Str};

    #[derive(Clone, Copy, Message)]
    #[repr(C)]
    struct Point {
        x: f32,
        y: f32,
    }

    #[derive(Clone, Copy, Message)]
    #[repr(i16)]
    #[allow(dead_code)]
    enum Step {
        Back = -1,
        Stay,
        r#On,
    }

    #[derive(Clone, Copy, Message)]
    #[repr(C)]
    struct Track {
        r#type: u32,
        points: [[Point; 2]; 3],
        steps: [Step; 2],
    }

    #[derive(Clone, Copy, Message)]
    #[repr(transparent)]
    struct Id(u64);

    #[test]
    fn primitive_is_one_line() {
        assert_eq!(u32::LAYOUT.describe(), "0 4 4 . u32\n");
        assert_eq!(<[[u8; 3]; 2]>::LAYOUT.describe(), "0 6 1 . [[u8; 3]; 2]\n");
    }

    #[test]
    fn nested_fields_are_flattened() {
        assert_eq!(
            Track::LAYOUT.describe(),
            "0 56 4 . Track\n\
             0 4 4 .type u32\n\
             4 48 4 .points [[Point; 2]; 3]\n\
             4 16 4 .points[] [Point; 2]\n\
             4 8 4 .points[][] Point\n\
             4 4 4 .points[][].x f32\n\
             8 4 4 .points[][].y f32\n\
             52 4 2 .steps [Step: i16; 2]\n\
             52 2 2 .steps[] Step: i16\n\
             52 2 2 .steps[]::Back = -1\n\
             52 2 2 .steps[]::Stay = 0\n\
             52 2 2 .steps[]::On = 1\n"
        );
    }

    #[test]
    fn tuples_and_newtypes_number_their_members() {
        assert_eq!(Id::LAYOUT.describe(), "0 8 8 . Id\n0 8 8 .0 u64\n");
        assert_eq!(<(u8,)>::LAYOUT.describe(), "0 1 1 . (u8,)\n0 1 1 .0 u8\n");
        let text = <(u32, f32)>::LAYOUT.describe();
        assert!(text.starts_with("0 8 4 . (u32, f32)\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn own_types_show_their_parts() {
        assert_eq!(
            Str::<12>::LAYOUT.describe(),
            "0 16 1 . Str\n0 4 1 .len [u8; 4]\n4 12 1 .bytes [u8; 12]\n"
        );
        assert_eq!(
            Maybe::<u16>::LAYOUT.describe(),
            "0 10 2 . Maybe\n0 8 1 .tag [u8; 8]\n8 2 2 .value u16\n"
        );
        assert_eq!(
            Span::LAYOUT.describe(),
            "0 16 8 . Span\n0 8 8 .secs u64\n8 4 4 .nanos u32\n12 4 4 .gap u32\n"
        );
    }

    #[test]
    fn module_does_not_matter() {
        mod elsewhere {
            #[derive(Clone, Copy, tombolo::Message)]
            #[repr(C)]
            pub(super) struct Point {
                x: f32,
                y: f32,
            }
        }
        assert_eq!(
            Point::LAYOUT.describe(),
            elsewhere::Point::LAYOUT.describe()
        );
    }
}
