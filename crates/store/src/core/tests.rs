//! The writer with a disk that does what the test says: blocks, fails, counts.

use std::sync::Mutex;
use std::sync::mpsc as std_mpsc;
use std::{io, mem};

use super::*;

const TTL: Duration = Duration::from_secs(5);

/// What the test and its disk share.
#[derive(Debug, Default)]
struct Control {
    /// How many of the next writes fail for want of space.
    failures: usize,
    writes: usize,
}

#[derive(Debug)]
struct FakeDisk {
    control: Arc<Mutex<Control>>,
    /// Says that a write has begun, and waits to be let on; closed gates let everything pass.
    entered: mpsc::UnboundedSender<()>,
    gate: std_mpsc::Receiver<()>,
}

impl Disk for FakeDisk {
    fn write(&mut self, _: &Changes, _: &Shared) -> io::Result<()> {
        self.entered.send(()).ok();
        self.gate.recv().ok();
        let mut control = self.control.lock().unwrap();
        control.writes += 1;
        if control.failures > 0 {
            control.failures -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

struct Fake {
    core: Arc<Core>,
    control: Arc<Mutex<Control>>,
    entered: mpsc::UnboundedReceiver<()>,
    gate: Option<std_mpsc::Sender<()>>,
}

impl Fake {
    /// A store whose writes wait for the gate.
    fn gated() -> Fake {
        let control = Arc::default();
        let (entered_sender, entered) = mpsc::unbounded_channel();
        let (gate, gate_receiver) = std_mpsc::channel();
        let disk = FakeDisk { control: Arc::clone(&control), entered: entered_sender, gate: gate_receiver };
        let core = Arc::new(Core::start(Saved::default(), Some(Box::new(disk))));
        Fake { core, control, entered, gate: Some(gate) }
    }

    /// A store whose writes pass at once.
    fn open() -> Fake {
        let mut fake = Fake::gated();
        fake.gate = None;
        fake
    }

    fn fail_next(&self, failures: usize) {
        self.control.lock().unwrap().failures = failures;
    }

    fn writes(&self) -> usize {
        self.control.lock().unwrap().writes
    }

    fn spawn_put(&self, key: &str) -> JoinHandle<Result<Revision, Error>> {
        let core = Arc::clone(&self.core);
        let txn = Txn::new().put(key.to_owned(), "");
        tokio::spawn(async move { core.commit(txn).await })
    }
}

#[tokio::test]
async fn shows_nothing_before_it_is_durable() {
    let mut fake = Fake::gated();
    let mut watch = fake.core.watch("", Revision(0)).unwrap();
    let put = fake.spawn_put("a");
    fake.entered.recv().await.unwrap();
    assert_eq!(fake.core.get("a"), None);
    assert_eq!(fake.core.revision(), Revision(0));
    let waiting = tokio::select! {
        biased;
        _ = watch.next() => false,
        () = std::future::ready(()) => true,
    };
    assert!(waiting && !put.is_finished());
    fake.gate.take();
    assert_eq!(put.await.unwrap().unwrap(), Revision(1));
    assert!(fake.core.get("a").is_some());
    assert_eq!(watch.next().await.unwrap().unwrap().revision, Revision(1));
}

#[tokio::test]
async fn writes_what_waits_in_one_go() {
    let mut fake = Fake::gated();
    let first = fake.spawn_put("first");
    fake.entered.recv().await.unwrap();
    let rest: Vec<_> = (0..50).map(|i| fake.spawn_put(&format!("k{i}"))).collect();
    // The runtime has one thread and takes tasks in turn: after this each of them has queued its request.
    tokio::task::yield_now().await;
    fake.gate.take();
    first.await.unwrap().unwrap();
    for (i, put) in (2..).zip(rest) {
        assert_eq!(put.await.unwrap().unwrap(), Revision(i), "answered in the order of the queue");
    }
    assert_eq!(fake.writes(), 2);
}

#[tokio::test]
async fn a_failed_write_fails_its_whole_group_and_nothing_else() {
    let mut fake = Fake::gated();
    fake.fail_next(1);
    let first = fake.spawn_put("first");
    fake.entered.recv().await.unwrap();
    let later = fake.spawn_put("later");
    tokio::task::yield_now().await;
    fake.gate.take();
    let error = first.await.unwrap().unwrap_err();
    assert!(error.is_full() && error.retryable(), "{error:?}");
    // The revision that was not made is used by the next.
    assert_eq!(later.await.unwrap().unwrap(), Revision(1));
    assert_eq!(fake.core.get("first"), None);
    let mut watch = fake.core.watch("", Revision(0)).unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events[0].key()), (Revision(1), "later"));
}

#[tokio::test]
async fn answers_that_rest_on_a_failed_write_fail_too() {
    let mut fake = Fake::gated();
    let first = fake.spawn_put("first");
    fake.entered.recv().await.unwrap();
    fake.fail_next(0);
    let put = fake.spawn_put("a");
    let core = Arc::clone(&fake.core);
    // Decided against the put before it, which is in the same group and will not come about.
    let check = tokio::spawn(async move { core.commit(Txn::new().if_absent("a").put("b", "")).await });
    tokio::task::yield_now().await;
    fake.gate.as_ref().unwrap().send(()).unwrap();
    first.await.unwrap().unwrap();
    fake.entered.recv().await.unwrap();
    fake.fail_next(1);
    fake.gate.take();
    assert!(put.await.unwrap().unwrap_err().is_full());
    assert!(check.await.unwrap().unwrap_err().is_full());
    assert_eq!(fake.core.revision(), Revision(1));
}

#[tokio::test(start_paused = true)]
async fn ends_leases_once_the_disk_lets_it() {
    let fake = Fake::open();
    let lease = fake.core.grant_lease(TTL).await.unwrap();
    let put = fake.core.commit(Txn::new().put_leased("a", "", lease)).await.unwrap();
    let mut watch = fake.core.watch("", put).unwrap();
    let before = fake.writes();
    fake.fail_next(3);
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].key(), "a");
    assert_eq!(fake.writes() - before, 4);
    assert_eq!(fake.core.get("a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_time_counts_as_over_before_its_keys_are_gone() {
    let mut fake = Fake::gated();
    let core = Arc::clone(&fake.core);
    let grant = tokio::spawn(async move { core.grant_lease(TTL).await });
    fake.entered.recv().await.unwrap();
    fake.gate.as_ref().unwrap().send(()).unwrap();
    let lease = grant.await.unwrap().unwrap();
    // The writer is about to end it and waits for the disk.
    fake.entered.recv().await.unwrap();
    assert!(matches!(fake.core.keep_alive(lease), Err(Error::LeaseNotFound(_))));
    fake.gate.take();
    fake.core.revoke_lease(lease).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_happens() {
    let fake = Fake::open();
    let lease = fake.core.grant_lease(TTL).await.unwrap();
    fake.core.commit(Txn::new().put_leased("a", "", lease)).await.unwrap();
    let before = fake.writes();
    for _ in 0..100 {
        tokio::time::sleep(TTL / 2).await;
        fake.core.keep_alive(lease).unwrap();
    }
    assert_eq!(fake.writes(), before);
    assert!(fake.core.get("a").is_some());
}

#[tokio::test]
async fn closing_answers_what_was_asked_and_ends_watches() {
    let mut fake = Fake::open();
    let mut watch = fake.core.watch("", Revision(0)).unwrap();
    let puts: Vec<_> = (0..10).map(|i| fake.spawn_put(&format!("k{i}"))).collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    let core = mem::replace(&mut fake.core, Arc::new(Core::start(Saved::default(), None)));
    Arc::into_inner(core).unwrap().close().await;
    let mut told = 0;
    while let Some(batch) = watch.next().await.unwrap() {
        told += 1;
        assert_eq!(batch.revision, Revision(told));
    }
    assert_eq!(told, 10);
    assert!(watch.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_disk_that_is_lost_closes_the_store() {
    #[derive(Debug)]
    struct Broken;
    impl Disk for Broken {
        fn write(&mut self, _: &Changes, _: &Shared) -> io::Result<()> {
            panic!("the disk driver has a bug")
        }
    }
    let core = Core::start(Saved::default(), Some(Box::new(Broken)));
    for _ in 0..2 {
        assert!(matches!(core.commit(Txn::new().put("a", "")).await, Err(Error::Closed)));
    }
    assert_eq!(core.get("a"), None);
}
