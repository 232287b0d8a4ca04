//! `/dev/fuse`: where requests come from and answers go.
//!
//! Stage: the outermost. One descriptor a worker, all of one mount; the kernel
//! gives each request to one of them.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Device(File);

/// What came instead of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// A request of so many bytes.
    Request(usize),
    /// It was taken back before it was read.
    Nothing,
    /// The mount is gone.
    Unmounted,
}

impl Device {
    /// Opens the device; it serves no mount yet.
    pub(crate) fn open() -> io::Result<Device> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open("/dev/fuse").map(Device)
    }

    /// Another descriptor that serves the same mount.
    pub(crate) fn another(&self) -> io::Result<Device> {
        let device = Device::open()?;
        zcache_sys::fuse::join_mount(device.0.as_fd(), self.0.as_fd())?;
        Ok(device)
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.0
    }

    /// Waits for a request.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match (&self.0).read(buffer) {
            Ok(0) => Ok(Received::Unmounted),
            Ok(len) => Ok(Received::Request(len)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NODEV) => Ok(Received::Unmounted),
                Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => Ok(Received::Nothing),
                _ => Err(error),
            },
        }
    }

    /// Tells the kernel something that it did not ask for. It may wait for
    /// requests that are being served.
    pub(crate) fn notify(&self, notice: &[u8]) -> io::Result<()> {
        (&self.0).write(notice).map(drop)
    }

    /// Answers. Who asked may have given up meanwhile, which is no error.
    pub(crate) fn answer(&self, head: &[u8], data: &[u8]) -> io::Result<()> {
        let sent = match data.is_empty() {
            true => (&self.0).write(head),
            false => (&self.0).write_vectored(&[IoSlice::new(head), IoSlice::new(data)]),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
