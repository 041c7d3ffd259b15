//! Time and the order of events. One thread has a queue of events by time and a queue of tasks that can continue, so a run is a
//! function of its seed. Nothing here waits in real time: an hour passes when no event comes before its end.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

type Task = Pin<Box<dyn Future<Output = ()>>>;
/// The number of a task; used once in a run.
pub type TaskId = u64;

/// The queue of tasks that were woken. A `Waker` shares it, and must be `Send`.
type Ready = Arc<Mutex<VecDeque<TaskId>>>;

struct Wakeup {
    task: TaskId,
    ready: Ready,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.push_back(self.task);
    }
}

struct Event {
    at: u64,
    /// Events of the same time happen in the order in which they were scheduled.
    number: u64,
    act: Box<dyn FnOnce()>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The one thread. All methods may be called from within tasks and events.
#[derive(Default)]
pub struct Executor {
    now: Cell<u64>,
    count: Cell<u64>,
    steps: Cell<u64>,
    events: RefCell<BinaryHeap<Event>>,
    /// `None` while it is being polled.
    tasks: RefCell<BTreeMap<TaskId, Option<(Task, Waker)>>>,
    /// The task that is being polled, and whether it was aborted meanwhile.
    current: Cell<Option<TaskId>>,
    doomed: Cell<bool>,
    ready: Ready,
}

impl Executor {
    /// Milliseconds since the run began.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// The number of steps so far.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    fn number(&self) -> u64 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// Does `act` in `delay` milliseconds.
    pub fn after(&self, delay: u64, act: impl FnOnce() + 'static) {
        let event = Event {
            at: self.now() + delay,
            number: self.number(),
            act: Box::new(act),
        };
        self.events.borrow_mut().push(event);
    }

    /// Continues in `delay` milliseconds.
    pub async fn sleep(&self, delay: u64) {
        let (give, take) = slot();
        self.after(delay, move || give.give(()));
        take.await;
    }

    /// Starts a task, which begins with the next step.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> TaskId {
        let id = self.number();
        let waker = Waker::from(Arc::new(Wakeup {
            task: id,
            ready: self.ready.clone(),
        }));
        waker.wake_by_ref();
        self.tasks
            .borrow_mut()
            .insert(id, Some((Box::pin(task), waker)));
        id
    }

    /// Drops a task where it is; the calling task itself, as soon as it waits.
    pub fn abort(&self, id: TaskId) {
        if self.current.get() == Some(id) {
            self.doomed.set(true);
            return;
        }
        // Dropped after the borrow has ended, because a guard in it may wake others.
        let gone = self.tasks.borrow_mut().remove(&id);
        drop(gone);
    }

    /// Continues one task, or, if none can continue, goes to the next event. `false` if there is neither.
    pub fn step(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        let woken = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if let Some(id) = woken {
            self.poll(id);
            return true;
        }
        let Some(event) = self.events.borrow_mut().pop() else {
            return false;
        };
        self.now.set(event.at);
        (event.act)();
        true
    }

    /// Drops all tasks and events.
    pub fn clear(&self) {
        let events = std::mem::take(&mut *self.events.borrow_mut());
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop((events, tasks));
    }

    fn poll(&self, id: TaskId) {
        let taken = self.tasks.borrow_mut().get_mut(&id).and_then(Option::take);
        let Some((mut task, waker)) = taken else {
            return;
        };
        self.current.set(Some(id));
        let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
        self.current.set(None);
        if self.doomed.take() || poll.is_ready() {
            self.tasks.borrow_mut().remove(&id);
            drop(task);
        } else if let Some(place) = self.tasks.borrow_mut().get_mut(&id) {
            *place = Some((task, waker));
        }
    }
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// Puts a value into the slot.
pub struct Give<T>(Rc<RefCell<Slot<T>>>);
/// Waits for the slot's value.
pub struct Take<T>(Rc<RefCell<Slot<T>>>);

/// A place for one value, from one part of the simulation to a task. If the giver is dropped, the taker waits for ever, as for
/// a lost message.
pub fn slot<T>() -> (Give<T>, Take<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
    }));
    (Give(slot.clone()), Take(slot))
}

impl<T> Give<T> {
    pub fn give(&self, value: T) {
        let mut slot = self.0.borrow_mut();
        slot.value.get_or_insert(value);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }

    /// Whether a task still waits.
    pub fn is_wanted(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

impl<T> Future for Take<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(value);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A lock that is granted in the order of the requests and released when its holder dies, as `flock` is.
#[derive(Clone, Default)]
pub struct FairLock(Rc<RefCell<Queue>>);

#[derive(Default)]
struct Queue {
    held: bool,
    waiting: VecDeque<Give<Held>>,
}

/// Holds a [`FairLock`].
pub struct Held(FairLock);

impl FairLock {
    pub async fn lock(&self) -> Held {
        let turn = {
            let mut queue = self.0.borrow_mut();
            if !queue.held {
                queue.held = true;
                return Held(self.clone());
            }
            let (give, take) = slot();
            queue.waiting.push_back(give);
            take
        };
        turn.await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut queue = self.0.0.borrow_mut();
        while let Some(next) = queue.waiting.pop_front() {
            if next.is_wanted() {
                // The guard itself is handed over: if the next holder dies before it continues, its slot drops the guard.
                next.give(Self(self.0.clone()));
                return;
            }
        }
        queue.held = false;
    }
}
