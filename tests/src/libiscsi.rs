//! libiscsi as a load generator: as many READ(16) or WRITE(16) in flight as asked for, each one's time taken.
//!
//! The few declarations are those of iscsi.h (package libiscsi-dev), version 1.18 and later. A context is used
//! by one thread.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::time::{Duration, Instant};

type Callback = extern "C" fn(*mut c_void, c_int, *mut c_void, *mut c_void);

#[link(name = "iscsi")]
// SAFETY: the signatures are those of iscsi.h and scsi-lowlevel.h; enums are ints there.
unsafe extern "C" {
    fn iscsi_create_context(initiator: *const c_char) -> *mut c_void;
    fn iscsi_destroy_context(iscsi: *mut c_void) -> c_int;
    fn iscsi_set_targetname(iscsi: *mut c_void, name: *const c_char) -> c_int;
    fn iscsi_set_session_type(iscsi: *mut c_void, kind: c_int) -> c_int;
    fn iscsi_full_connect_sync(iscsi: *mut c_void, portal: *const c_char, lun: c_int) -> c_int;
    fn iscsi_logout_sync(iscsi: *mut c_void) -> c_int;
    fn iscsi_get_error(iscsi: *mut c_void) -> *const c_char;
    fn iscsi_get_fd(iscsi: *mut c_void) -> c_int;
    fn iscsi_which_events(iscsi: *mut c_void) -> c_int;
    fn iscsi_service(iscsi: *mut c_void, events: c_int) -> c_int;
    fn iscsi_read16_task(
        iscsi: *mut c_void,
        lun: c_int,
        lba: u64,
        len: u32,
        block: c_int,
        protect: c_int,
        dpo: c_int,
        fua: c_int,
        fua_nv: c_int,
        group: c_int,
        callback: Callback,
        private: *mut c_void,
    ) -> *mut c_void;
    fn iscsi_write16_task(
        iscsi: *mut c_void,
        lun: c_int,
        lba: u64,
        data: *mut c_uchar,
        len: u32,
        block: c_int,
        protect: c_int,
        dpo: c_int,
        fua: c_int,
        fua_nv: c_int,
        group: c_int,
        callback: Callback,
        private: *mut c_void,
    ) -> *mut c_void;
    fn scsi_free_scsi_task(task: *mut c_void);
}

const SESSION_NORMAL: c_int = 2;
const SECTOR: u64 = 512;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Write, or read.
    pub write: bool,
    /// At random places, or one after the other.
    pub random: bool,
    /// Bytes of each request.
    pub bytes: u32,
    /// Requests in flight.
    pub depth: usize,
    /// The part of the volume that is used, from its start.
    pub span: u64,
    /// For how long.
    pub time: Duration,
}

/// A session that is logged in. After an error it is of no more use.
pub struct Session {
    context: *mut c_void,
    // Declared after the context and freed after it: libiscsi holds pointers to both while requests fly, and
    // calls back for those that still do when the context is destroyed.
    slots: Vec<Slot>,
    data: Vec<u8>,
}

/// Room for one request in flight, as its callback finds it.
#[derive(Clone, Copy)]
enum Slot {
    Idle,
    Flying { start: Instant },
    Done { status: c_int, took: Duration },
}

extern "C" fn finished(_: *mut c_void, status: c_int, task: *mut c_void, slot: *mut c_void) {
    // SAFETY: `slot` is the pointer given with the task; its Slot lives in the session, at an address that
    // does not change while requests fly, longer than the context, and the one thread there is holds no reference to it inside of libiscsi.
    let slot = unsafe { &mut *slot.cast::<Slot>() };
    if let Slot::Flying { start } = *slot {
        *slot = Slot::Done { status, took: start.elapsed() };
    }
    if !task.is_null() {
        // SAFETY: libiscsi hands the finished task over to its callback, which frees it once.
        unsafe { scsi_free_scsi_task(task) };
    }
}

impl Session {
    /// Logs in to logical unit 0 of a target.
    pub fn login(portal: &str, target: &str) -> Result<Session, String> {
        let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
        let (initiator, portal, target) =
            (text("iqn.2026-11.io.holdfast.bench:1")?, text(portal)?, text(target)?);
        // SAFETY: each string lives over the calls; libiscsi copies them.
        let context = unsafe { iscsi_create_context(initiator.as_ptr()) };
        if context.is_null() {
            return Err("libiscsi has no memory".to_owned());
        }
        let session = Session { context, slots: Vec::new(), data: Vec::new() };
        // SAFETY: the context is not null, and each string lives over the calls.
        let failed = unsafe {
            iscsi_set_targetname(context, target.as_ptr()) != 0
                || iscsi_set_session_type(context, SESSION_NORMAL) != 0
                || iscsi_full_connect_sync(context, portal.as_ptr(), 0) != 0
        };
        if failed { Err(session.error()) } else { Ok(session) }
    }

    fn error(&self) -> String {
        // SAFETY: libiscsi returns a string of its own that lives until the next call on the context.
        unsafe { CStr::from_ptr(iscsi_get_error(self.context)) }.to_string_lossy().into_owned()
    }

    /// Runs a load; the time that each request took.
    pub fn run(&mut self, load: Load) -> Result<Vec<Duration>, String> {
        if self.slots.iter().any(|s| !matches!(s, Slot::Idle)) {
            return Err("the session failed before".to_owned());
        }
        self.data = vec![0xa5; load.bytes as usize];
        self.slots = (0..load.depth).map(|_| Slot::Idle).collect();
        let mut times = Vec::new();
        let (mut random, mut count) = (0x9e37_79b9_7f4a_7c15, 0);
        let places = load.span / u64::from(load.bytes);
        let end = Instant::now() + load.time;
        loop {
            let going = Instant::now() < end;
            let mut flying = 0;
            for i in 0..self.slots.len() {
                if let Slot::Done { status, took } = self.slots[i] {
                    if status != 0 {
                        return Err(format!("SCSI status {status:#x}: {}", self.error()));
                    }
                    times.push(took);
                    self.slots[i] = Slot::Idle;
                }
                if going && matches!(self.slots[i], Slot::Idle) {
                    random = crate::pattern::next(random);
                    count += 1;
                    let place = if load.random { random } else { count } % places;
                    self.submit(load, place * u64::from(load.bytes) / SECTOR, i)?;
                }
                flying += usize::from(matches!(self.slots[i], Slot::Flying { .. }));
            }
            if flying == 0 && !going {
                return Ok(times);
            }
            self.serve()?;
        }
    }

    fn submit(&mut self, load: Load, lba: u64, slot: usize) -> Result<(), String> {
        self.slots[slot] = Slot::Flying { start: Instant::now() };
        let private = std::ptr::from_mut(&mut self.slots[slot]).cast::<c_void>();
        let block = SECTOR as c_int;
        // SAFETY: data and slot live in the session, at addresses that do not change while requests fly: `run`
        // replaces them only when every slot is idle.
        let task = unsafe {
            if load.write {
                let data = self.data.as_mut_ptr();
                iscsi_write16_task(
                    self.context,
                    0,
                    lba,
                    data,
                    load.bytes,
                    block,
                    0,
                    0,
                    0,
                    0,
                    0,
                    finished,
                    private,
                )
            } else {
                iscsi_read16_task(self.context, 0, lba, load.bytes, block, 0, 0, 0, 0, 0, finished, private)
            }
        };
        if task.is_null() { Err(self.error()) } else { Ok(()) }
    }

    /// Waits for the socket and lets libiscsi work.
    fn serve(&mut self) -> Result<(), String> {
        // SAFETY: the context is not null; poll gets one valid entry.
        let failed = unsafe {
            let events = iscsi_which_events(self.context) as i16;
            let mut wait = libc::pollfd { fd: iscsi_get_fd(self.context), events, revents: 0 };
            libc::poll(&raw mut wait, 1, 1000);
            iscsi_service(self.context, c_int::from(wait.revents)) != 0
        };
        if failed { Err(self.error()) } else { Ok(()) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let idle = self.slots.iter().all(|s| matches!(s, Slot::Idle));
        // SAFETY: the context came from iscsi_create_context and is destroyed once.
        unsafe {
            if idle {
                iscsi_logout_sync(self.context);
            }
            iscsi_destroy_context(self.context);
        }
    }
}
