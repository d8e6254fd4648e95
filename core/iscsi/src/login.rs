//! The login phase: who the initiator is, whether it may, and what both sides agree on.
//!
//! ```text
//! SecurityNegotiation --> LoginOperationalNegotiation --> full feature phase
//!           \______________________________________________/
//! ```
//!
//! Every refusal is a login response with a status, after which the connection closes. Nothing of the volume
//! is touched. What an initiator may make this hold is bounded by [`MAX_TEXT_BYTES`] and [`MAX_REQUESTS`].
//!
//! Source: RFC 7143 6, 11.12, 11.13.

use crate::{
    IQN_PREFIX, PORTAL_GROUP,
    chap::{Challenge, MD5_ALGORITHM},
    params::{Answer, LOGIN_RECEIVE_BYTES, MAX_RECEIVE_BYTES, Params, SessionKind, pairs, push_pair},
    pdu::{FINAL, Header, Pdu, response},
    sequence::Sequence,
};
use alloc::{
    collections::BTreeSet,
    format,
    string::{String, ToString},
    vec::Vec,
};
use holdfast_types::{CloseReason, Exports, SessionLogin, VolumeId};

/// How much text of one request may be spread over several PDUs.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// How many login requests one login may take.
const MAX_REQUESTS: u32 = 64;
const CONTINUE: u8 = 0x40;
const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

//= RFC 7143 11.13.5
/// Why a login is refused: status class and detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    InitiatorError = 0x0200,
    AuthenticationFailed = 0x0201,
    AuthorizationFailure = 0x0202,
    NotFound = 0x0203,
    UnsupportedVersion = 0x0205,
    MissingParameter = 0x0207,
    SessionTypeNotSupported = 0x0209,
    SessionDoesNotExist = 0x020a,
    InvalidDuringLogin = 0x020b,
    ServiceUnavailable = 0x0301,
}

impl Refusal {
    fn close_reason(self) -> CloseReason {
        match self {
            Refusal::AuthenticationFailed => CloseReason::AuthenticationFailed,
            Refusal::AuthorizationFailure => CloseReason::NoSecret,
            Refusal::NotFound => CloseReason::NoSuchTarget,
            Refusal::ServiceUnavailable => CloseReason::NotReady,
            Refusal::InitiatorError => CloseReason::Protocol("login request is not valid"),
            Refusal::UnsupportedVersion => CloseReason::Protocol("iSCSI version is not supported"),
            Refusal::MissingParameter => CloseReason::Protocol("login lacks a parameter"),
            Refusal::SessionTypeNotSupported => CloseReason::Protocol("session type is not supported"),
            Refusal::SessionDoesNotExist => CloseReason::Protocol("login to a session that does not exist"),
            Refusal::InvalidDuringLogin => CloseReason::Protocol("not a login request"),
        }
    }
}

/// How far authentication is.
#[derive(Debug)]
enum Auth {
    Open,
    /// AuthMethod=None was chosen.
    NotNeeded,
    /// AuthMethod=CHAP was chosen.
    Chosen,
    Challenged(Challenge),
    Proven,
}

/// Who the initiator is and what it wants, from its first request.
#[derive(Clone, Debug)]
struct Leading {
    initiator: String,
    isid: [u8; 6],
    kind: SessionKind,
    target: Option<(String, VolumeId)>,
}

/// A session that is agreed.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) params: Params,
    pub(crate) kind: SessionKind,
    pub(crate) sequence: Sequence,
    /// The longest data segment that the initiator was told it may send.
    pub(crate) receives: u32,
    pub(crate) target: Option<(String, VolumeId)>,
    pub(crate) login: SessionLogin,
}

/// What came of a login request.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Answered, and more is to come.
    More,
    /// Answered, and the session is in full feature phase.
    Established(Established),
    /// Refused; the connection is to close.
    Refused(CloseReason),
}

/// A login under way.
#[derive(Debug)]
pub(crate) struct Login {
    needs_chap: bool,
    entropy: [u8; 32],
    tsih: u16,
    requests: u32,
    text: Vec<u8>,
    leading: Option<Leading>,
    sequence: Option<Sequence>,
    stage: u8,
    auth: Auth,
    params: Params,
    settled: BTreeSet<String>,
    declared: bool,
}

impl Login {
    /// `tsih` names the session if it comes to be.
    pub(crate) fn new(entropy: [u8; 32], tsih: u16, needs_chap: bool) -> Self {
        Self {
            needs_chap,
            entropy,
            tsih,
            requests: 0,
            text: Vec::new(),
            leading: None,
            sequence: None,
            stage: SECURITY,
            auth: Auth::Open,
            params: Params::default(),
            settled: BTreeSet::new(),
            declared: false,
        }
    }

    /// Answers a login request: the response's header and text, and what comes of it.
    pub(crate) fn request(&mut self, pdu: &Pdu, exports: &Exports) -> (Header, Vec<u8>, Progress) {
        let mut header = self.response(pdu);
        let result = self.decide(pdu, exports);
        let sequence = self.sequence.get_or_insert_with(|| Sequence::new(pdu.header.command_sn()));
        sequence.stamp(&mut header);
        match result {
            Err(refusal) => {
                header.0[1] = 0;
                header.set(36, &(refusal as u16).to_be_bytes());
                (header, Vec::new(), Progress::Refused(refusal.close_reason()))
            }
            Ok(Decision { text, transit: None }) => {
                header.0[1] = pdu.header.flags() & 0x0c;
                (header, text, Progress::More)
            }
            Ok(Decision { text, transit: Some(next) }) => {
                header.0[1] = FINAL | (pdu.header.flags() & 0x0c) | next;
                self.stage = next;
                let progress = if next == FULL_FEATURE { self.establish() } else { Progress::More };
                if matches!(progress, Progress::Established(_)) {
                    header.set(14, &self.tsih.to_be_bytes());
                }
                (header, text, progress)
            }
        }
    }

    fn response(&self, pdu: &Pdu) -> Header {
        let mut header = Header::new(response::LOGIN);
        header.set(8, &pdu.header.0[8..16]);
        header.set(16, &pdu.header.0[16..20]);
        header
    }

    fn decide(&mut self, pdu: &Pdu, exports: &Exports) -> Result<Decision, Refusal> {
        let flags = pdu.header.flags();
        let (transit, more) = (flags & FINAL != 0, flags & CONTINUE != 0);
        let (stage, next) = ((flags >> 2) & 3, flags & 3);
        self.requests += 1;
        if self.requests > MAX_REQUESTS || (transit && more) {
            return Err(Refusal::InitiatorError);
        }
        //= RFC 7143 11.12.4
        if pdu.header.0[3] != 0 {
            return Err(Refusal::UnsupportedVersion);
        }
        if exports.not_joined {
            return Err(Refusal::ServiceUnavailable);
        }
        if self.needs_chap && exports.chap.is_none() {
            return Err(Refusal::AuthorizationFailure);
        }
        if self.text.len() + pdu.header.data_bytes() > MAX_TEXT_BYTES {
            return Err(Refusal::InitiatorError);
        }
        self.text.extend(pdu.text());
        if more {
            return Ok(Decision { text: Vec::new(), transit: None });
        }
        let pairs = pairs(&core::mem::take(&mut self.text)).ok_or(Refusal::InitiatorError)?;
        let mut text = Vec::new();
        if self.leading.is_none() {
            // A login may begin with either stage.
            self.stage = stage;
            let leading = lead(pdu, &pairs, exports)?;
            if leading.kind == SessionKind::Normal {
                //= RFC 7143 13.9
                push_pair(&mut text, "TargetPortalGroupTag", &format!("{PORTAL_GROUP}"));
            }
            self.leading = Some(leading);
        }
        if stage != self.stage {
            return Err(Refusal::InitiatorError);
        }
        match stage {
            SECURITY => self.security(&pairs, exports, &mut text)?,
            OPERATIONAL if self.authenticated(exports) => self.operational(&pairs, &mut text)?,
            OPERATIONAL => return Err(Refusal::AuthenticationFailed),
            _ => return Err(Refusal::InitiatorError),
        }
        if text.len() > LOGIN_RECEIVE_BYTES as usize {
            return Err(Refusal::InitiatorError);
        }
        let transit = match (transit, next) {
            (false, _) => None,
            (true, OPERATIONAL | FULL_FEATURE) if next > stage => self.authenticated(exports).then_some(next),
            (true, _) => return Err(Refusal::InitiatorError),
        };
        Ok(Decision { text, transit })
    }

    fn authenticated(&self, exports: &Exports) -> bool {
        match self.auth {
            Auth::Proven => true,
            Auth::Open | Auth::NotNeeded => exports.chap.is_none(),
            Auth::Chosen | Auth::Challenged(_) => false,
        }
    }

    //= RFC 7143 12.1
    fn security(
        &mut self,
        pairs: &[(String, String)],
        exports: &Exports,
        text: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        //= RFC 7143 12.1.3
        // CHAP_I or CHAP_C of the initiator asks this target to prove itself: it has no secret for that.
        if get("CHAP_C").is_some() || get("CHAP_I").is_some() {
            return Err(Refusal::AuthenticationFailed);
        }
        if let Some(offer) = get("AuthMethod") {
            let ours = if exports.chap.is_some() { "CHAP" } else { "None" };
            if !matches!(self.auth, Auth::Open) || !offer.split(',').any(|method| method == ours) {
                return Err(Refusal::AuthenticationFailed);
            }
            push_pair(text, "AuthMethod", ours);
            self.auth = if exports.chap.is_some() { Auth::Chosen } else { Auth::NotNeeded };
        }
        if let Some(algorithms) = get("CHAP_A") {
            if !matches!(self.auth, Auth::Chosen) || !algorithms.split(',').any(|a| a == MD5_ALGORITHM) {
                return Err(Refusal::AuthenticationFailed);
            }
            let challenge = Challenge::new(&self.entropy);
            push_pair(text, "CHAP_A", MD5_ALGORITHM);
            push_pair(text, "CHAP_I", &challenge.id());
            push_pair(text, "CHAP_C", &challenge.text());
            self.auth = Auth::Challenged(challenge);
        }
        if let Some(answer) = get("CHAP_R") {
            let proven = match (&self.auth, &exports.chap, get("CHAP_N")) {
                (Auth::Challenged(challenge), Some(secret), Some(name)) => {
                    challenge.proves(name, answer, secret)
                }
                _ => false,
            };
            if !proven {
                return Err(Refusal::AuthenticationFailed);
            }
            self.auth = Auth::Proven;
        }
        let security = ["AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R"];
        self.operational_pairs(pairs.iter().filter(|(k, _)| !security.contains(&k.as_str())), text, false)
    }

    fn operational(&mut self, pairs: &[(String, String)], text: &mut Vec<u8>) -> Result<(), Refusal> {
        self.operational_pairs(pairs.iter(), text, true)?;
        if !self.declared {
            self.declared = true;
            push_pair(text, "MaxRecvDataSegmentLength", &MAX_RECEIVE_BYTES.to_string());
        }
        Ok(())
    }

    fn operational_pairs<'a>(
        &mut self,
        pairs: impl Iterator<Item = &'a (String, String)>,
        text: &mut Vec<u8>,
        operational: bool,
    ) -> Result<(), Refusal> {
        let kind = self.leading.as_ref().map_or(SessionKind::Normal, |l| l.kind);
        for (key, offer) in pairs {
            let answer = if operational || names_somebody(key) {
                self.params.negotiate(key, offer, kind)
            } else {
                // Operational keys have their own stage.
                Answer::Value("NotUnderstood".to_string())
            };
            let known = answer != Answer::Value("NotUnderstood".to_string());
            //= RFC 7143 6.3
            // A key is negotiated once.
            if known && !names_somebody(key) && !self.settled.insert(key.clone()) {
                return Err(Refusal::InitiatorError);
            }
            match answer {
                Answer::Value(value) => push_pair(text, key, &value),
                Answer::Silent => {}
                Answer::Invalid => return Err(Refusal::InitiatorError),
            }
        }
        Ok(())
    }

    fn establish(&mut self) -> Progress {
        let (Some(leading), Some(sequence)) = (self.leading.take(), self.sequence.take()) else {
            return Progress::Refused(Refusal::InvalidDuringLogin.close_reason());
        };
        let isid = leading.isid.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let login = SessionLogin {
            nexus: format!("{},i,0x{isid}", leading.initiator),
            initiator: leading.initiator,
            volume: leading.target.as_ref().map(|(_, volume)| *volume),
        };
        let mut params = self.params.clone();
        params.settle();
        Progress::Established(Established {
            params,
            kind: leading.kind,
            sequence,
            receives: if self.declared { MAX_RECEIVE_BYTES } else { LOGIN_RECEIVE_BYTES },
            target: leading.target,
            login,
        })
    }
}

/// What is answered, and the stage to go to.
struct Decision {
    text: Vec<u8>,
    transit: Option<u8>,
}

/// The keys of a first request, which belong to no stage.
fn names_somebody(key: &str) -> bool {
    matches!(key, "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType")
}

//= RFC 7143 6.3, 13.4, 13.5, 13.21
/// Reads the first request.
fn lead(pdu: &Pdu, pairs: &[(String, String)], exports: &Exports) -> Result<Leading, Refusal> {
    let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    // A session has one connection, and a lost one is not resumed.
    if pdu.header.u16(14) != 0 {
        return Err(Refusal::SessionDoesNotExist);
    }
    let initiator = get("InitiatorName").filter(|name| !name.is_empty()).ok_or(Refusal::MissingParameter)?;
    if initiator.len() > 223 {
        return Err(Refusal::InitiatorError);
    }
    let kind = match get("SessionType") {
        None | Some("Normal") => SessionKind::Normal,
        Some("Discovery") => SessionKind::Discovery,
        Some(_) => return Err(Refusal::SessionTypeNotSupported),
    };
    let target = match kind {
        SessionKind::Discovery => None,
        SessionKind::Normal => {
            let name = get("TargetName").ok_or(Refusal::MissingParameter)?;
            let export = name.strip_prefix(IQN_PREFIX).and_then(|volume| exports.volumes.get(volume));
            Some((name.to_string(), export.ok_or(Refusal::NotFound)?.volume))
        }
    };
    let mut isid = [0; 6];
    isid.copy_from_slice(&pdu.header.0[8..14]);
    Ok(Leading { initiator: initiator.to_string(), isid, kind, target })
}
