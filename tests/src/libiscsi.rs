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
    fn iscsi_set_isid_random(iscsi: *mut c_void, random: u32, qualifier: u32) -> c_int;
    fn iscsi_set_noautoreconnect(iscsi: *mut c_void, state: c_int);
    fn iscsi_set_session_type(iscsi: *mut c_void, kind: c_int) -> c_int;
    fn iscsi_full_connect_sync(iscsi: *mut c_void, portal: *const c_char, lun: c_int) -> c_int;
    fn iscsi_logout_sync(iscsi: *mut c_void) -> c_int;
    fn iscsi_logout_async(iscsi: *mut c_void, callback: Callback, private: *mut c_void) -> c_int;
    fn iscsi_nop_out_async(
        iscsi: *mut c_void,
        callback: Callback,
        data: *mut c_uchar,
        len: c_int,
        private: *mut c_void,
    ) -> c_int;
    fn iscsi_task_mgmt_abort_task_async(
        iscsi: *mut c_void,
        task: *mut c_void,
        callback: Callback,
        private: *mut c_void,
    ) -> c_int;
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
    fn iscsi_scsi_cancel_task(iscsi: *mut c_void, task: *mut c_void) -> c_int;
    fn scsi_task_add_data_in_buffer(task: *mut c_void, len: c_int, buffer: *mut c_uchar) -> c_int;
    fn scsi_free_scsi_task(task: *mut c_void);
}

const SESSION_NORMAL: c_int = 2;
const SECTOR: u64 = 512;
const BOTH: libc::c_short = libc::POLLIN | libc::POLLOUT;

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
    // What was answered to a request that is no command: 0, or why not.
    answer: Box<Option<c_int>>,
}

/// A command that was sent; of use until its answer is taken.
#[derive(Clone, Copy, Debug)]
pub struct Task(*mut c_void);

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

extern "C" fn answered(_: *mut c_void, status: c_int, _: *mut c_void, answer: *mut c_void) {
    // SAFETY: `answer` is the pointer given with the request; what it points to lives as long as the session's
    // slots do, and as they do.
    unsafe { *answer.cast::<Option<c_int>>() = Some(status) };
}

extern "C" fn managed(_: *mut c_void, status: c_int, response: *mut c_void, answer: *mut c_void) {
    // SAFETY: as above; libiscsi gives an uint32_t with the answer to a task management request.
    unsafe {
        let response = if response.is_null() { status } else { *response.cast::<u32>() as c_int };
        *answer.cast::<Option<c_int>>() = Some(if status == 0 { response } else { status });
    }
}

impl Session {
    /// Logs in to logical unit 0 of a target.
    pub fn login(portal: &str, target: &str) -> Result<Session, String> {
        Self::login_with(portal, target, None)
    }

    /// The same under a given ISID, thus as the nexus that another session with it had. It does not connect anew by
    /// itself.
    pub fn login_as(portal: &str, target: &str, isid: u32) -> Result<Session, String> {
        Self::login_with(portal, target, Some(isid))
    }

    fn login_with(portal: &str, target: &str, isid: Option<u32>) -> Result<Session, String> {
        let text = |s: &str| CString::new(s).map_err(|e| e.to_string());
        let (initiator, portal, target) =
            (text("iqn.2026-11.io.holdfast.bench:1")?, text(portal)?, text(target)?);
        // SAFETY: each string lives over the calls; libiscsi copies them.
        let context = unsafe { iscsi_create_context(initiator.as_ptr()) };
        if context.is_null() {
            return Err("libiscsi has no memory".to_owned());
        }
        let session = Session { context, slots: Vec::new(), data: Vec::new(), answer: Box::new(None) };
        // SAFETY: the context is not null, and each string lives over the calls.
        let failed = unsafe {
            if let Some(isid) = isid {
                iscsi_set_isid_random(context, isid, 0);
                iscsi_set_noautoreconnect(context, 1);
            }
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
        self.take_slots(load.depth)?;
        self.data = vec![0xa5; load.bytes as usize];
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
            self.serve(BOTH, 1000)?;
        }
    }

    /// Makes room for so many requests at once.
    fn take_slots(&mut self, count: usize) -> Result<(), String> {
        if self.slots.iter().any(|s| !matches!(s, Slot::Idle)) {
            return Err("the session failed before, or an answer is not taken".to_owned());
        }
        self.slots = vec![Slot::Idle; count];
        Ok(())
    }

    /// Writes, and waits for the answer.
    pub fn write(&mut self, offset: u64, data: &[u8], limit: Duration) -> Result<(), String> {
        self.begin_write(offset, data)?;
        self.end(limit)
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize, limit: Duration) -> Result<Vec<u8>, String> {
        self.take_slots(1)?;
        self.data = vec![0; len];
        let (bytes, span) = (len as u32, len as u64);
        let load = Load { write: false, random: false, bytes, depth: 1, span, time: Duration::ZERO };
        let task = self.submit(load, offset / SECTOR, 0)?;
        // SAFETY: the task flies, and its bytes live in the session at an address that does not change meanwhile.
        if unsafe { scsi_task_add_data_in_buffer(task.0, len as c_int, self.data.as_mut_ptr()) } != 0 {
            return Err("libiscsi has no memory".to_owned());
        }
        self.end(limit)?;
        Ok(std::mem::take(&mut self.data))
    }

    /// Sends a write, as far as the socket takes it.
    pub fn begin_write(&mut self, offset: u64, data: &[u8]) -> Result<Task, String> {
        self.take_slots(1)?;
        self.data = data.to_vec();
        let (bytes, span) = (data.len() as u32, data.len() as u64);
        let load = Load { write: true, random: false, bytes, depth: 1, span, time: Duration::ZERO };
        let task = self.submit(load, offset / SECTOR, 0)?;
        self.send_queued()?;
        Ok(task)
    }

    /// Aborts the write that was begun, and waits for the target's word.
    pub fn abort(&mut self, task: Task, limit: Duration) -> Result<(), String> {
        // SAFETY: the context is not null, and the task is not answered: its slot flies, or `ask` has returned.
        self.ask(limit, |context, answer| unsafe {
            iscsi_task_mgmt_abort_task_async(context, task.0, managed, answer)
        })?;
        // An aborted task is not answered. SAFETY: as before; this ends the task.
        let failed = unsafe { iscsi_scsi_cancel_task(self.context, task.0) } != 0;
        self.slots.clear();
        if failed { Err("the aborted write was answered".to_owned()) } else { Ok(()) }
    }

    /// Sends a NOP, and waits for its answer.
    pub fn nop(&mut self, limit: Duration) -> Result<(), String> {
        // SAFETY: the context is not null; a NOP without data takes none.
        self.ask(limit, |context, answer| unsafe {
            iscsi_nop_out_async(context, answered, std::ptr::null_mut(), 0, answer)
        })
    }

    /// Logs out, whatever is under way, and waits for the answer.
    pub fn logout(&mut self, limit: Duration) -> Result<(), String> {
        // SAFETY: the context is not null.
        self.ask(limit, |context, answer| unsafe { iscsi_logout_async(context, answered, answer) })
    }

    /// Sends a request that is no command, and waits for its answer.
    fn ask(
        &mut self,
        limit: Duration,
        send: impl FnOnce(*mut c_void, *mut c_void) -> c_int,
    ) -> Result<(), String> {
        let end = Instant::now() + limit;
        *self.answer = None;
        if send(self.context, std::ptr::from_mut(&mut *self.answer).cast()) != 0 {
            return Err(self.error());
        }
        loop {
            match *self.answer {
                Some(0) => return Ok(()),
                Some(answer) => return Err(format!("answer {answer:#x}: {}", self.error())),
                None if Instant::now() >= end => return Err(format!("no answer within {limit:?}")),
                None => self.serve(BOTH, 20)?,
            }
        }
    }

    /// Waits for the answer to the command that was begun.
    pub fn end(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            match self.slots[..] {
                [Slot::Done { status: 0, .. }] => {
                    self.slots.clear();
                    return Ok(());
                }
                [Slot::Done { status, .. }] => {
                    return Err(format!("SCSI status {status:#x}: {}", self.error()));
                }
                _ if Instant::now() >= end => return Err(format!("no answer within {limit:?}")),
                _ => self.serve(BOTH, 20)?,
            }
        }
    }

    fn submit(&mut self, load: Load, lba: u64, slot: usize) -> Result<Task, String> {
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
        if task.is_null() { Err(self.error()) } else { Ok(Task(task)) }
    }

    /// Asks for the first bytes of the unit, many times at once, and takes no answer.
    pub fn begin_reads(&mut self, count: usize, bytes: u32) -> Result<(), String> {
        self.take_slots(count)?;
        let (depth, span) = (count, u64::from(bytes));
        let load = Load { write: false, random: false, bytes, depth, span, time: Duration::ZERO };
        (0..count).try_for_each(|slot| self.submit(load, 0, slot).map(drop))?;
        self.send_queued()
    }

    /// Takes the answers to the reads that were begun. Each must come within the limit.
    pub fn end_reads(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        while self.slots.iter().any(|s| matches!(s, Slot::Flying { .. })) {
            if Instant::now() >= end {
                return Err(format!("no answer within {limit:?}"));
            }
            self.serve(BOTH, 20)?;
        }
        let failed = self.slots.iter().any(|s| !matches!(s, Slot::Done { status: 0, .. }));
        self.slots.clear();
        if failed { Err(self.error()) } else { Ok(()) }
    }

    /// Gives the socket what waits to be sent, and reads nothing.
    fn send_queued(&mut self) -> Result<(), String> {
        // SAFETY: the context is not null.
        while unsafe { iscsi_which_events(self.context) } & c_int::from(libc::POLLOUT) != 0 {
            self.serve(libc::POLLOUT, 1000)?;
        }
        Ok(())
    }

    /// Waits for the socket and lets libiscsi work.
    fn serve(&mut self, wanted: libc::c_short, milliseconds: c_int) -> Result<(), String> {
        // SAFETY: the context is not null; poll gets one valid entry.
        let failed = unsafe {
            let events = iscsi_which_events(self.context) as libc::c_short & wanted;
            let mut wait = libc::pollfd { fd: iscsi_get_fd(self.context), events, revents: 0 };
            libc::poll(&raw mut wait, 1, milliseconds);
            iscsi_service(self.context, c_int::from(wait.revents & (wanted | libc::POLLERR | libc::POLLHUP)))
                != 0
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
