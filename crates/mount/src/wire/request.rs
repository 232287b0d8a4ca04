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
}

impl Header {
    /// Reads the header and gives the rest of the request.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, Fields<'_>), Errno> {
        let mut fields = Fields(bytes);
        let len = fields.u32()? as usize;
        let header = Header {
            opcode: fields.u32()?,
            unique: fields.u64()?,
            node: fields.u64()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
        };
        fields.skip(8)?;
        let rest = len.checked_sub(IN_HEADER_BYTES).ok_or(Errno::IO)?;
        Ok((header, Fields(fields.0.get(..rest).ok_or(Errno::IO)?)))
    }
}

/// The bytes of a request that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::IO)?;
        self.0 = rest;
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
        let name = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::IO)?;
        self.0 = &self.0[name.count_bytes() + 1..];
        Ok(name)
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
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
