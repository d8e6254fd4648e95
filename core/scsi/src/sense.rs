//! Sense data: why a command did not end in GOOD. Built as values, encoded in fixed or descriptor format.
//! Source: SPC-4 4.5.

use alloc::{vec, vec::Vec};

/// The class of a failure (SPC-4 4.5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenseKey {
    /// Nothing to report.
    NoSense = 0x0,
    /// The data cannot be read or written.
    MediumError = 0x3,
    /// The device failed in a way that is not the medium's.
    HardwareError = 0x4,
    /// The command is not valid.
    IllegalRequest = 0x5,
    /// Something changed since the last command.
    UnitAttention = 0x6,
    /// The device refuses to write.
    DataProtect = 0x7,
    /// The command was given up; the initiator may repeat it.
    AbortedCommand = 0xb,
    /// Compared data differs.
    Miscompare = 0xe,
}

/// An additional sense code and its qualifier (SPC-4 annex F.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8, pub u8);

impl Code {
    /// NO ADDITIONAL SENSE INFORMATION
    pub const NONE: Code = Code(0x00, 0x00);
    /// COMMANDS CLEARED BY DEVICE SERVER
    pub const COMMANDS_CLEARED_BY_DEVICE_SERVER: Code = Code(0x2f, 0x02);
    /// UNEXPECTED UNSOLICITED DATA
    pub const UNEXPECTED_UNSOLICITED_DATA: Code = Code(0x0c, 0x0c);
    /// INCORRECT AMOUNT OF DATA (RFC 7143 11.4.7.2)
    pub const INCORRECT_AMOUNT_OF_DATA: Code = Code(0x0c, 0x0d);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the transport moves another amount than the CDB asks for
    pub const INVALID_FIELD_IN_INFORMATION_UNIT: Code = Code(0x0e, 0x03);
    /// UNRECOVERED READ ERROR
    pub const UNRECOVERED_READ_ERROR: Code = Code(0x11, 0x00);
    /// PARAMETER LIST LENGTH ERROR
    pub const PARAMETER_LIST_LENGTH_ERROR: Code = Code(0x1a, 0x00);
    /// MISCOMPARE DURING VERIFY OPERATION
    pub const MISCOMPARE_DURING_VERIFY: Code = Code(0x1d, 0x00);
    /// INVALID COMMAND OPERATION CODE
    pub const INVALID_OPERATION_CODE: Code = Code(0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE
    pub const LBA_OUT_OF_RANGE: Code = Code(0x21, 0x00);
    /// INVALID FIELD IN CDB
    pub const INVALID_FIELD_IN_CDB: Code = Code(0x24, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Code = Code(0x25, 0x00);
    /// INVALID FIELD IN PARAMETER LIST
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Code = Code(0x26, 0x00);
    /// SPACE ALLOCATION FAILED WRITE PROTECT
    pub const SPACE_ALLOCATION_FAILED: Code = Code(0x27, 0x07);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
    pub const POWER_ON: Code = Code(0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED
    pub const DEVICE_RESET: Code = Code(0x29, 0x03);
    /// CAPACITY DATA HAS CHANGED
    pub const CAPACITY_CHANGED: Code = Code(0x2a, 0x09);
    /// SAVING PARAMETERS NOT SUPPORTED
    pub const SAVING_NOT_SUPPORTED: Code = Code(0x39, 0x00);
    /// INTERNAL TARGET FAILURE
    pub const INTERNAL_TARGET_FAILURE: Code = Code(0x44, 0x00);
    /// PROTOCOL SERVICE CRC ERROR
    pub const PROTOCOL_SERVICE_CRC_ERROR: Code = Code(0x47, 0x05);
}

/// Which field of the CDB or of the parameter list is at fault (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB, else in the parameter list.
    pub in_cdb: bool,
    /// The byte, counted from 0.
    pub byte: u16,
    /// The most significant bit of the field, when it is not the whole byte.
    pub bit: Option<u8>,
}

impl FieldPointer {
    /// The three sense-key specific bytes.
    fn encode(self) -> [u8; 3] {
        let mut first = 0x80;
        if self.in_cdb {
            first |= 0x40;
        }
        if let Some(bit) = self.bit {
            first |= 0x08 | (bit & 0x7);
        }
        let byte = self.byte.to_be_bytes();
        [first, byte[0], byte[1]]
    }
}

/// Why a command did not end in GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The class.
    pub key: SenseKey,
    /// The exact reason.
    pub code: Code,
    /// A number that goes with it, such as the first differing byte.
    pub information: Option<u64>,
    /// The field at fault.
    pub field: Option<FieldPointer>,
}

const FIXED_BYTES: usize = 18;
const DESCRIPTOR_INFORMATION: u8 = 0x00;
const DESCRIPTOR_KEY_SPECIFIC: u8 = 0x02;

impl Sense {
    /// Nothing to report.
    pub const NONE: Sense = Sense::new(SenseKey::NoSense, Code::NONE);

    /// A failure with no more to say than its code.
    pub const fn new(key: SenseKey, code: Code) -> Self {
        Self { key, code, information: None, field: None }
    }
    /// ILLEGAL REQUEST of that code.
    pub const fn illegal(code: Code) -> Self {
        Self::new(SenseKey::IllegalRequest, code)
    }
    /// The CDB's byte `byte` holds what is not supported; `bit` is the field's highest bit, when it is not the
    /// whole byte.
    pub const fn cdb_field(byte: u16, bit: Option<u8>) -> Self {
        let mut sense = Self::illegal(Code::INVALID_FIELD_IN_CDB);
        sense.field = Some(FieldPointer { in_cdb: true, byte, bit });
        sense
    }
    /// The parameter list's byte `byte` holds what is not supported.
    pub const fn parameter_field(byte: u16) -> Self {
        let mut sense = Self::illegal(Code::INVALID_FIELD_IN_PARAMETER_LIST);
        sense.field = Some(FieldPointer { in_cdb: false, byte, bit: None });
        sense
    }
    /// The initiator moves another amount of data than its CDB asks for.
    pub const fn wrong_length() -> Self {
        Self::illegal(Code::INVALID_FIELD_IN_INFORMATION_UNIT)
    }
    /// The same, with a number.
    pub const fn with_information(mut self, information: u64) -> Self {
        self.information = Some(information);
        self
    }

    //= SPC-4 4.5.3
    /// In fixed format. A number that does not fit is left out.
    pub fn fixed(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[0] = 0x70;
        if let Some(Ok(information)) = self.information.map(u32::try_from) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[2] = self.key as u8;
        bytes[7] = (FIXED_BYTES - 8) as u8;
        bytes[12] = self.code.0;
        bytes[13] = self.code.1;
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&field.encode());
        }
        bytes
    }

    //= SPC-4 4.5.2
    /// In descriptor format.
    pub fn descriptor(&self) -> Vec<u8> {
        let mut bytes = vec![0x72, self.key as u8, self.code.0, self.code.1, 0, 0, 0, 0];
        if let Some(information) = self.information {
            bytes.extend([DESCRIPTOR_INFORMATION, 0x0a, 0x80, 0]);
            bytes.extend(information.to_be_bytes());
        }
        if let Some(field) = self.field {
            bytes.extend([DESCRIPTOR_KEY_SPECIFIC, 0x06, 0, 0]);
            bytes.extend(field.encode());
            bytes.push(0);
        }
        bytes[7] = (bytes.len() - 8) as u8;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sense_points_at_the_field_in_the_cdb() {
        let sense = Sense::cdb_field(2, Some(7)).fixed();
        assert_eq!(sense, [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xcf, 0, 2]);
    }

    #[test]
    fn fixed_sense_carries_the_information_or_says_it_is_not_valid() {
        let sense = Sense::new(SenseKey::Miscompare, Code::MISCOMPARE_DURING_VERIFY);
        let fits = sense.with_information(0x1234).fixed();
        assert_eq!((fits[0], &fits[3..7]), (0xf0, &[0, 0, 0x12, 0x34][..]));
        let wide = sense.with_information(1 << 40).fixed();
        assert_eq!((wide[0], &wide[3..7]), (0x70, &[0; 4][..]));
    }

    #[test]
    fn descriptor_sense_has_one_descriptor_for_each_thing_said() {
        let sense = Sense::parameter_field(9).with_information(5).descriptor();
        let expected = [
            0x72, 5, 0x26, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 6, 0, 0, 0x80, 0, 9, 0,
        ];
        assert_eq!(sense, expected);
    }
}
