//! One run: a store of some kind, opened, used and dropped, and opened again over
//! what the first one left in the tier.

use zcache::{Key, LoadError, ObjectId, PAGE_SIZE, Store};

use crate::client::{Client, Held};
use crate::complaints::Complaints;
use crate::expect::Expected;
use crate::keys::Name;
use crate::rest;
use crate::shared::{Shape, Shared};
use crate::support::random::Random;

/// Operations between two rests, of all threads together.
const STEPS: u64 = 400;

/// Rests of one store.
const ROUNDS: u64 = 3;

/// Keys of the store before that are looked for.
const OLD_KEYS_MAX: usize = 200;

pub(crate) fn run(random: &mut Random, threads: u64, complaints: &Complaints) {
    let shape = Shape::drawn(random, threads);
    let tier = shape.tier(random);
    let mut before = Vec::new();
    let restarts = random.below(3);
    let patient = random.one_in(3);
    for life in 0..=restarts {
        let shared = Shared::new(&shape, tier.clone(), complaints);
        let client = |number| Client::new(&shared, number, Random(random.next()));
        let mut clients: Vec<Client<'_>> = (1..=threads).map(client).collect();
        nothing_is_left(&shared.store, &before);
        for _ in 0..ROUNDS {
            round(&mut clients);
            for client in &mut clients {
                client.end_recompressions();
            }
            rest::check(&shared, &clients);
        }
        if life == restarts {
            rest::finish(&shared, &mut clients, patient);
        } else {
            before = clients.iter().map(Names::of).collect();
        }
    }
}

/// Every client does its operations, each in a thread if there are several.
fn round(clients: &mut [Client<'_>]) {
    let steps = STEPS / clients.len() as u64;
    if let [client] = clients {
        return (0..steps).for_each(|_| client.step());
    }
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || (0..steps).for_each(|_| client.step()));
        }
    });
}

/// What a store that is gone had.
struct Names {
    keys: Vec<Key>,
    handles: Vec<Held>,
}

impl Names {
    fn of(client: &Client<'_>) -> Names {
        let names = client.keys.keys().take(OLD_KEYS_MAX);
        Names {
            keys: names.map(|name| client.key_of(*name)).collect(),
            handles: client.handles.clone(),
        }
    }
}

/// A store over a tier that holds another's blocks knows nothing of them.
fn nothing_is_left(store: &Store, before: &[Names]) {
    let mut out = [0; PAGE_SIZE];
    for names in before {
        for key in &names.keys {
            assert_eq!(store.get(key, &mut out), Ok(false), "of an earlier store");
        }
        for held in &names.handles {
            let loaded = store.load(held.handle, &mut out);
            assert_eq!(loaded, Err(LoadError::Gone), "of an earlier store");
        }
    }
    let stats = store.stats();
    assert_eq!((stats.stored_pages, stats.swap_bytes), (0, 0));
    assert_eq!(store.validate(), Ok(()));
}

/// A model that is told another page than the one that is put.
pub(crate) fn with_a_wrong_expectation() {
    let complaints = Complaints::default();
    let mut random = Random(1);
    let shape = Shape::drawn(&mut random, 1);
    let shared = Shared::new(&shape, None, &complaints);
    let mut client = Client::new(&shared, 1, Random(2));
    let pool = client.pools[0];
    let name: Name = (pool.number(), 0, 1);
    let key = Key {
        pool,
        object: ObjectId([0, 0, 0]),
        index: 1,
    };
    let page = crate::support::pages::record(1);
    shared.store.put(&key, &page).expect("an empty store");
    client.keys.insert(name, Expected::Maybe(2));
    client.read_all();
}
