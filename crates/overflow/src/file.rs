//! Jobs of one machine, in one file that survives the process.
//!
//! The file has what must not be lost: works, answers, keys. The order in which jobs are taken, and which of them run,
//! is in memory and made anew at the start: a job that ran when the process died waits again, so each is worked at
//! *at least* once. All that came up while the last batch was written is one transaction, so a burst costs few syncs.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use sluicegate::jobs::{JobId, JobState, Op, Put, Said, Seen, Store, StoreError, Taken, Work};

use sluicegate::jobs::record::{Meta, work_of, work_to_bytes};

/// What is said of a job, as JSON.
const METAS: TableDefinition<'static, u128, &[u8]> = TableDefinition::new("metas-1");
/// Headers and body of the request, until it is over.
const WORKS: TableDefinition<'static, u128, &[u8]> = TableDefinition::new("works-1");
/// Headers and body of the answer.
const ANSWERS: TableDefinition<'static, u128, &[u8]> = TableDefinition::new("answers-1");
/// Which job a key names.
const KEYS: TableDefinition<'static, &[u8], u128> = TableDefinition::new("keys-1");

/// Jobs forgotten in one batch, so that no batch takes long.
const FORGET_MAX: usize = 256;

/// A [`Store`] in a file.
pub struct FileStore {
    database: Database,
    index: Index,
}

/// What is known without reading the file.
#[derive(Default)]
struct Index {
    /// Jobs that are not final.
    open: HashMap<JobId, Place>,
    /// Those that may be taken: from when, and in which order they came.
    ready: BTreeSet<(u64, u64, JobId)>,
    /// When final ones are to be forgotten.
    ends: BTreeSet<(u64, JobId)>,
    next_number: u64,
}

/// Where an open job stands.
#[derive(Clone, Copy)]
struct Place {
    /// In which order it came.
    number: u64,
    /// When it may be taken; `None` while it is.
    from_ms: Option<u64>,
    running: bool,
}

impl FileStore {
    /// Opens the file, or makes it. Jobs that were taken when the last process ended wait again.
    ///
    /// # Errors
    /// The file cannot be opened (another process has it, no permission) or is none of ours.
    pub fn open(path: &Path) -> Result<FileStore, StoreError> {
        let fault = |error: &dyn std::fmt::Display| StoreError(format!("{}: {error}", path.display()));
        let database = Database::create(path).map_err(|error| fault(&error))?;
        let index = load(&database).map_err(|error| fault(&error))?;
        Ok(FileStore { database, index })
    }
}

fn load(database: &Database) -> Result<Index, StoreError> {
    let write = database.begin_write().map_err(lost)?;
    write.open_table(WORKS).map_err(lost)?;
    write.open_table(ANSWERS).map_err(lost)?;
    write.open_table(KEYS).map_err(lost)?;
    let mut index = Index::default();
    for entry in write.open_table(METAS).map_err(lost)?.iter().map_err(lost)? {
        let (id, meta) = entry.map_err(lost)?;
        let (id, meta) = (JobId(id.value()), Meta::read(meta.value())?);
        index.next_number = index.next_number.max(meta.number + 1);
        match meta.ends_ms {
            Some(ends_ms) => {
                index.ends.insert((ends_ms, id));
            }
            None => {
                index.wait(id, Place { number: meta.number, from_ms: None, running: false }, meta.from_ms)
            }
        }
    }
    write.commit().map_err(lost)?;
    Ok(index)
}

impl Index {
    fn wait(&mut self, id: JobId, place: Place, from_ms: u64) {
        self.open.insert(id, Place { from_ms: Some(from_ms), running: false, ..place });
        self.ready.insert((from_ms, place.number, id));
    }

    /// Takes a job out of whatever it stands in.
    fn leave(&mut self, id: JobId) -> Option<Place> {
        let place = self.open.remove(&id)?;
        if let Some(from_ms) = place.from_ms {
            self.ready.remove(&(from_ms, place.number, id));
        }
        Some(place)
    }

    fn state(&self, id: JobId) -> JobState {
        match self.open.get(&id) {
            Some(Place { running: true, .. }) => JobState::Running,
            _ => JobState::Queued,
        }
    }
}

impl Store for FileStore {
    fn apply(&mut self, now_ms: u64, ops: &[Op]) -> Result<Vec<Said>, StoreError> {
        let due: Vec<JobId> =
            self.index.ends.range(..(now_ms, JobId(0))).take(FORGET_MAX).map(|(_, id)| *id).collect();
        let mut batch = Batch { database: &self.database, index: &mut self.index, write: None, now_ms };
        for id in due {
            batch.forget(id)?;
        }
        let said = ops.iter().map(|op| batch.one(op)).collect::<Result<Vec<Said>, StoreError>>()?;
        if let Some(write) = batch.write {
            write.commit().map_err(lost)?;
        }
        Ok(said)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// One call's changes: one transaction, begun by the first that changes the file.
///
/// A batch that fails half-way leaves the index ahead of the file. The desk ends then, and the next start reads the
/// file.
struct Batch<'a> {
    database: &'a Database,
    index: &'a mut Index,
    write: Option<WriteTransaction>,
    now_ms: u64,
}

impl Batch<'_> {
    fn write(&mut self) -> Result<&WriteTransaction, StoreError> {
        if self.write.is_none() {
            let mut write = self.database.begin_write().map_err(lost)?;
            write.set_durability(Durability::Immediate).map_err(lost)?;
            self.write = Some(write);
        }
        Ok(self.write.as_ref().expect("begun above"))
    }

    fn one(&mut self, op: &Op) -> Result<Said, StoreError> {
        Ok(match op {
            Op::Put { id, job, print, most } => {
                if let Some(key) = &job.key
                    && let Some(found) = self.find(key)?
                {
                    let same = self.meta(found)?.is_some_and(|meta| meta.print == *print);
                    let seen = if same { self.look(found)? } else { None };
                    let put = seen.map_or(Put::Differs, Put::Same);
                    return Ok(Said::Put(Box::new(put)));
                }
                if self.index.open.len() as u64 >= *most {
                    return Ok(Said::Put(Box::new(Put::Full)));
                }
                let meta = Meta::new(job, *print, self.index.next_number, self.now_ms);
                self.store(*id, &meta, &job.work)?;
                Said::Put(Box::new(Put::Stored(meta.seen(*id, JobState::Queued, None))))
            }
            Op::Find(key) => match self.find(key)? {
                Some(id) => Said::Job(self.look(id)?.map(Box::new)),
                None => Said::Job(None),
            },
            Op::Look(id) => Said::Job(self.look(*id)?.map(Box::new)),
            Op::Take { most, .. } => Said::Taken(self.take(*most)?),
            // Nobody else can take them.
            Op::Renew(..) => Said::Known(true),
            Op::Begin(id) => match self.index.open.get_mut(id) {
                Some(place) => {
                    place.running = true;
                    Said::Known(true)
                }
                None => Said::Known(false),
            },
            Op::Finish { id, result, ends_ms } => Said::Known(self.finish(*id, result, *ends_ms)?),
            Op::Back { id, from_ms, failed } => Said::Known(self.back(*id, *from_ms, failed.as_deref())?),
            Op::Cancel(id) => Said::Known(self.forget(*id)?),
            Op::Count => Said::Count(self.index.open.len() as u64),
        })
    }

    fn store(&mut self, id: JobId, meta: &Meta, work: &Work) -> Result<(), StoreError> {
        let write = self.write()?;
        write.open_table(METAS).map_err(lost)?.insert(id.0, &*meta.write()).map_err(lost)?;
        write.open_table(WORKS).map_err(lost)?.insert(id.0, &*work_to_bytes(work)).map_err(lost)?;
        if let Some(key) = &meta.key {
            write.open_table(KEYS).map_err(lost)?.insert(key.as_bytes(), id.0).map_err(lost)?;
        }
        self.index.next_number += 1;
        self.index.wait(id, Place { number: meta.number, from_ms: None, running: false }, 0);
        Ok(())
    }

    /// Reads as this batch has it.
    fn read(
        &self,
        table: TableDefinition<'static, u128, &'static [u8]>,
        id: JobId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.write {
            Some(write) => {
                let table = write.open_table(table).map_err(lost)?;
                let found = table.get(id.0).map_err(lost)?.map(|found| found.value().to_vec());
                Ok(found)
            }
            None => {
                let read = self.database.begin_read().map_err(lost)?;
                let table = read.open_table(table).map_err(lost)?;
                let found = table.get(id.0).map_err(lost)?.map(|found| found.value().to_vec());
                Ok(found)
            }
        }
    }

    fn meta(&self, id: JobId) -> Result<Option<Meta>, StoreError> {
        self.read(METAS, id)?.map(|bytes| Meta::read(&bytes)).transpose()
    }

    fn find(&self, key: &str) -> Result<Option<JobId>, StoreError> {
        let found = match &self.write {
            Some(write) => {
                let table = write.open_table(KEYS).map_err(lost)?;
                table.get(key.as_bytes()).map_err(lost)?.map(|id| id.value())
            }
            None => {
                let read = self.database.begin_read().map_err(lost)?;
                let table = read.open_table(KEYS).map_err(lost)?;
                table.get(key.as_bytes()).map_err(lost)?.map(|id| id.value())
            }
        };
        Ok(found.map(JobId))
    }

    fn look(&self, id: JobId) -> Result<Option<Seen>, StoreError> {
        let Some(meta) = self.meta(id)? else { return Ok(None) };
        let answer = if meta.status.is_some() { self.read(ANSWERS, id)? } else { None };
        Ok(Some(meta.seen(id, self.index.state(id), answer)))
    }

    fn take(&mut self, most: usize) -> Result<Vec<Taken>, StoreError> {
        let now = (self.now_ms, u64::MAX, JobId(u128::MAX));
        let first: Vec<(u64, u64, JobId)> = self.index.ready.range(..=now).take(most).copied().collect();
        let mut taken = Vec::with_capacity(first.len());
        for (from_ms, number, id) in first {
            self.index.ready.remove(&(from_ms, number, id));
            let (Some(meta), Some(work)) = (self.meta(id)?, self.read(WORKS, id)?) else { continue };
            if let Some(place) = self.index.open.get_mut(&id) {
                place.from_ms = None;
            }
            taken.push(Taken { id, tries: meta.tries, work: work_of(&meta, &Bytes::from(work))? });
        }
        Ok(taken)
    }

    fn finish(
        &mut self,
        id: JobId,
        result: &Result<sluicegate::jobs::Outcome, String>,
        ends_ms: u64,
    ) -> Result<bool, StoreError> {
        let open = self.index.leave(id).is_some();
        let Some(mut meta) = self.meta(id)?.filter(|_| open) else { return Ok(false) };
        let answer = meta.end(result, ends_ms);
        let write = self.write()?;
        write.open_table(METAS).map_err(lost)?.insert(id.0, &*meta.write()).map_err(lost)?;
        write.open_table(WORKS).map_err(lost)?.remove(id.0).map_err(lost)?;
        if let Some(answer) = answer {
            write.open_table(ANSWERS).map_err(lost)?.insert(id.0, &*answer).map_err(lost)?;
        }
        self.index.ends.insert((ends_ms, id));
        Ok(true)
    }

    fn back(&mut self, id: JobId, from_ms: u64, failed: Option<&str>) -> Result<bool, StoreError> {
        let Some(place) = self.index.leave(id) else { return Ok(false) };
        if let Some(why) = failed
            && let Some(mut meta) = self.meta(id)?
        {
            meta.tries += 1;
            meta.error = Some(why.to_owned());
            meta.from_ms = from_ms;
            self.write()?.open_table(METAS).map_err(lost)?.insert(id.0, &*meta.write()).map_err(lost)?;
        }
        self.index.wait(id, place, from_ms);
        Ok(true)
    }

    fn forget(&mut self, id: JobId) -> Result<bool, StoreError> {
        let Some(meta) = self.meta(id)? else { return Ok(false) };
        self.index.leave(id);
        if let Some(ends_ms) = meta.ends_ms {
            self.index.ends.remove(&(ends_ms, id));
        }
        let write = self.write()?;
        write.open_table(METAS).map_err(lost)?.remove(id.0).map_err(lost)?;
        write.open_table(WORKS).map_err(lost)?.remove(id.0).map_err(lost)?;
        write.open_table(ANSWERS).map_err(lost)?.remove(id.0).map_err(lost)?;
        if let Some(key) = meta.key {
            write.open_table(KEYS).map_err(lost)?.remove(key.as_bytes()).map_err(lost)?;
        }
        Ok(true)
    }
}

pub(crate) fn lost(error: impl std::fmt::Display) -> StoreError {
    StoreError(format!("the file of jobs: {error}"))
}
