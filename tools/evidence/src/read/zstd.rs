//! Zstandard (RFC 8878), frame after frame: `zstd` appends frames, and `pzstd` writes many, with skippable ones between.
//!
//! Promise: what was decoded of a damaged stream is handed out before the error; a frame whose content checksum is wrong
//! ends in one. The window, and so the memory, is bounded by the decoder (128 MiB, as in the reference).

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// All frames of a stream as one text.
pub(super) struct Frames<R> {
    source: BufReader<R>,
    decoder: FrameDecoder,
    /// Between the header of a frame and its last byte handed out.
    in_frame: bool,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source: BufReader::new(source), decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Reads the header of the next frame that holds data; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(out);
            }
            if self.decoder.is_finished() {
                self.in_frame = false;
                let stored = self.decoder.get_checksum_from_data();
                if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                    return Err(io::Error::other("the checksum of a zstd frame is wrong"));
                }
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
        }
    }
}

/// One frame, for tests.
#[cfg(test)]
pub(super) fn packed(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> (Vec<u8>, io::Result<usize>) {
        let mut text = Vec::new();
        let end = Frames::new(bytes).read_to_end(&mut text);
        (text, end)
    }

    #[test]
    fn frames_follow_one_another_and_skippable_ones_are_passed_over() {
        let long = b"cvk1 kernel: o2hb: Unable to write\n".repeat(9000);
        let skippable = [&0x184D_2A53_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
        let stream =
            [&skippable[..], &packed(&long), &packed(b""), &skippable, &packed(b"last\n"), &skippable]
                .concat();
        let (text, end) = unpacked(&stream);
        assert_eq!(text, [&long[..], b"last\n"].concat());
        assert_eq!(end.unwrap(), text.len());
        assert_eq!(unpacked(b"").1.unwrap(), 0);
    }

    #[test]
    fn a_cut_a_wrong_checksum_and_what_is_not_zstd_end_in_an_error_after_what_is_whole() {
        let first = packed(b"first\n");
        let mut second = packed(b"second\n");
        for cut in 1..second.len() {
            let (text, end) = unpacked(&[&first, &second[..cut]].concat());
            assert!(text.starts_with(b"first\n"), "{cut}");
            assert!(end.is_err(), "{cut}");
        }
        // The checksum is the last four bytes of a frame.
        *second.last_mut().unwrap() ^= 1;
        let (text, end) = unpacked(&[&first[..], &second].concat());
        assert_eq!(text, b"first\nsecond\n");
        assert_eq!(end.unwrap_err().to_string(), "the checksum of a zstd frame is wrong");
        let (text, end) = unpacked(&[&first[..], b"garbage"].concat());
        assert_eq!(text, b"first\n");
        assert!(end.is_err());
        let (_, end) =
            unpacked(&[&0x184D_2A50_u32.to_le_bytes()[..], &9_u32.to_le_bytes(), b"short"].concat());
        assert!(end.is_err());
    }

    /// What the reference writes: `seq 4000 | sed 's/$/ zstd by the reference/' | zstd -19 --check`.
    #[test]
    fn a_frame_of_the_reference_is_read() {
        const FRAME: &[u8] = include_bytes!("testdata/reference.zst");
        let (text, end) = unpacked(FRAME);
        end.unwrap();
        assert!(text.starts_with(b"1 zstd by the reference\n2 zstd"), "{:?}", &text[..40]);
        assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 4000);
    }
}
