//! Simulated processes that go on as a script says: the narrow windows that seeds hardly ever meet.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use larder_engine::simulated::{self, Simulated};
use larder_engine::snapshots::{Filter, list};
use larder_engine::storage::error::Operation;

use super::chance::Chance;
use super::people::Person;
use super::stage::{Cue, Cues, Habits, NOBODY, Objects, Stage};
use super::truth::{Truth, open};
use super::{init, memory_folder};

/// People of a scene: nobody needs more.
const PEOPLE: usize = 6;

/// What all clocks show: later than any file was written, so that nothing looks as if it had just changed.
const NOW_NS: i64 = 40_000 * 86_400 * 1_000_000_000;

/// A repository, and people who do what a script says.
pub struct Scene {
    /// Where they are.
    pub stage: Arc<Stage>,
    truth: Arc<Mutex<Truth>>,
    folder: tempfile::TempDir,
    people: usize,
}

/// Somebody in the middle of something.
pub struct Doing<T> {
    stage: Arc<Stage>,
    who: usize,
    thread: JoinHandle<(Person, T)>,
}

impl Scene {
    /// Makes an empty repository.
    pub fn new() -> Self {
        let mut chance = Chance::new(0, 0);
        let habits = Habits {
            page: 1000,
            ..Habits::of(&mut chance)
        };
        let folder = tempfile::tempdir_in(memory_folder()).unwrap();
        let stage = Stage::new(chance, habits, Objects::new(), PEOPLE);
        stage.calm();
        init(&stage, 0);
        Self {
            stage,
            truth: Arc::new(Mutex::new(Truth::default())),
            folder,
            people: 0,
        }
    }

    /// Brings in somebody with a source and a host of their own.
    pub fn person(&mut self) -> Person {
        let who = self.people;
        self.people += 1;
        let chance = Chance::new(0, 1 + who as u64);
        Person::new(&self.stage, who, &self.truth, chance, self.folder.path())
    }

    /// Lets somebody begin; nothing happens before [`Doing::until`] or [`Doing::end`].
    pub fn begin<T: Send + 'static>(
        &self,
        mut person: Person,
        act: impl FnOnce(&mut Person) -> T + Send + 'static,
    ) -> Doing<T> {
        let (stage, who) = (Arc::clone(&self.stage), person.who);
        person.close();
        let thread = thread::spawn(move || {
            let seed = person.chance.next();
            simulated::enter(Some(Simulated::new(seed, NOW_NS, Duration::from_secs(1))));
            person.stage.enter(who);
            let done = act(&mut person);
            person.stage.leave(who);
            (person, done)
        });
        Doing { stage, who, thread }
    }

    /// Lets somebody do something from the beginning to the end.
    pub fn act<T: Send + 'static>(
        &self,
        person: Person,
        act: impl FnOnce(&mut Person) -> T + Send + 'static,
    ) -> (Person, T) {
        self.begin(person, act).end()
    }

    /// Takes the one checkpoint that is listed for reported: it has to stay.
    pub fn expect_checkpoint(&self) {
        let repository = open(&self.stage, NOBODY).unwrap();
        let listed = list(&repository, &Filter::default(), true).unwrap();
        let mut checkpoints = listed.into_iter().filter(|one| one.partial);
        let id = checkpoints.next().unwrap().id;
        assert!(checkpoints.next().is_none());
        self.truth.lock().unwrap().committed(id, Some(0));
    }

    /// Looks at what is listed, and at the bytes of all snapshots or of one.
    pub fn verify(&self, only: Option<&str>) {
        let outcome = self.truth.lock().unwrap().verify(&self.stage, only);
        if let Err(why) = outcome {
            self.stage.fail(why);
        }
    }
}

impl<T> Doing<T> {
    /// Lets them go on until they are about to do something.
    pub fn until(&self, mut is_it: impl FnMut(Operation, &str) -> bool + Send + 'static) {
        let cue = move |operation, name: &str| match is_it(operation, name) {
            true => Cue::Wait,
            false => Cue::Go,
        };
        let waits = self.stage.play(self.who, Box::new(cue));
        assert!(waits, "they ended before that: {:?}", self.stage.failure());
    }

    /// Lets them go on to the end, as if nothing were.
    pub fn end(self) -> (Person, T) {
        self.end_with(Box::new(|_, _| Cue::Go))
    }

    /// Lets them go on to the end, or to their death.
    pub fn end_with(self, cues: Cues) -> (Person, T) {
        assert!(!self.stage.play(self.who, cues), "they wait for something");
        self.thread.join().unwrap()
    }
}
