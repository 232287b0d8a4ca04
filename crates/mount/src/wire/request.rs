//! What the kernel asks: a header, then fields and names by position.

use std::ffi::CStr;

use rustix::io::Errno;

/// Bytes of the header of every request.
pub(crate) const IN_HEADER_BYTES: usize = 40;

/// Who asks for what of which inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    /// Names the request in its answer.
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread that asks; 0 where it cannot be named here.
    pub(crate) pid: u32,
}

impl Header {
    /// Reads the header and gives the rest of the request.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, Fields<'_>), Errno> {
        let (header, len, rest) = Header::fields(bytes)?;
        let rest = rest.get(..len).ok_or(Errno::IO)?;
        Ok((header, Fields::of(rest)))
    }

    /// Reads a request that came in parts: its header, the room that its first
    /// argument lies in, and all that follows.
    pub(crate) fn parse_parts<'a>(
        header: &[u8],
        argument: &'a [u8],
        rest: &'a [u8],
    ) -> Result<(Header, Fields<'a>), Errno> {
        let (header, len, _) = Header::fields(header)?;
        let argument = len
            .checked_sub(rest.len())
            .and_then(|len| argument.get(..len));
        let argument = argument.ok_or(Errno::IO)?;
        Ok((header, Fields { argument, rest }))
    }

    /// The header, how many bytes belong to the request behind it, and all that
    /// there are.
    fn fields(bytes: &[u8]) -> Result<(Header, usize, &[u8]), Errno> {
        let mut fields = Fields::of(bytes);
        let len = fields.u32()? as usize;
        let header = Header {
            opcode: fields.u32()?,
            unique: fields.u64()?,
            node: fields.u64()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            pid: fields.u32()?,
        };
        fields.skip(4)?;
        let len = len.checked_sub(IN_HEADER_BYTES).ok_or(Errno::IO)?;
        Ok((header, len, fields.rest))
    }
}

/// The bytes of a request that have not been read yet. Those of its first
/// argument may lie apart from the others; no field lies in both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    argument: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Fields that lie together.
    pub(crate) fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields {
            argument: &[],
            rest: bytes,
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let from = match self.argument.is_empty() {
            true => &mut self.rest,
            false => &mut self.argument,
        };
        let (bytes, rest) = from.split_at_checked(len).ok_or(Errno::IO)?;
        *from = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(crate) fn skip(&mut self, len: usize) -> Result<(), Errno> {
        self.bytes(len).map(drop)
    }

    /// A name or path, which ends with a zero byte.
    pub(crate) fn name(&mut self) -> Result<&'a CStr, Errno> {
        if !self.argument.is_empty() {
            return Err(Errno::IO);
        }
        let name = CStr::from_bytes_until_nul(self.rest).map_err(|_| Errno::IO)?;
        self.rest = &self.rest[name.count_bytes() + 1..];
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((IN_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend(77u64.to_ne_bytes());
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend(1000u32.to_ne_bytes());
        bytes.extend(100u32.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_request_is_read_by_position() {
        let bytes = request(b"one\0two\0");
        let (header, mut fields) = Header::parse(&bytes).expect("a request");
        assert_eq!((header.opcode, header.unique, header.node), (1, 77, 5));
        assert_eq!((header.uid, header.gid), (1000, 100));
        assert_eq!(fields.name(), Ok(c"one"));
        assert_eq!(fields.name(), Ok(c"two"));
        assert_eq!(fields.name(), Err(Errno::IO));
    }

    #[test]
    fn a_request_in_parts_is_the_same() {
        let bytes = request(b"12345678name\0");
        let (header, rest) = bytes.split_at(IN_HEADER_BYTES);
        let (argument, rest) = rest.split_at(8);
        let room = [argument, &[0xff; 120]].concat();
        let (parsed, mut fields) = Header::parse_parts(header, &room, rest).expect("a request");
        assert_eq!(parsed, Header::parse(&bytes).expect("a request").0);
        assert_eq!(fields.u64(), Ok(u64::from_ne_bytes(*b"12345678")));
        assert_eq!(fields.name(), Ok(c"name"));
        assert_eq!(fields.u32(), Err(Errno::IO), "it ends where it ends");
        let more = [rest, &[0; 300]].concat();
        assert!(Header::parse_parts(header, &room, &more).is_err());
        assert!(
            Header::parse_parts(header, &room, &[]).is_ok_and(|(_, mut fields)| {
                fields
                    .bytes(13)
                    .is_ok_and(|bytes| bytes.ends_with(&[0xff; 5]))
            })
        );
    }

    #[test]
    fn no_cut_of_a_request_panics() {
        let bytes = request(b"name\0");
        for len in 0..bytes.len() {
            assert!(Header::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
        let mut short = bytes;
        short[0] = 3;
        assert!(Header::parse(&short).is_err());
        let mut fields = Fields::of(&[1, 2, 3]);
        assert_eq!(fields.u32(), Err(Errno::IO));
        assert_eq!(fields.name(), Err(Errno::IO));
    }
}
