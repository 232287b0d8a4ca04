//! A store filled with pages of one kind, and what its statistics say of them.

use zcache::tier::memory::MemoryTier;
use zcache::{
    Codec, Handle, Key, ObjectId, PAGE_SIZE, PoolId, Rejected, Stats, Store, StoreConfig,
};

use super::kind::Kind;

/// Pages of an object where it has many.
const OBJECT_PAGES: u32 = 1024;

/// RAM that a full store is asked to free before a page is tried again.
const ROOM_BYTES: u64 = 256 << 10;

/// Pages refused in a row after which a store is full.
const REFUSALS: u32 = 8;

/// How a page is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Handle,
    Key,
    KeyOfObject,
    KeyOfPool,
}

impl Address {
    pub(super) const ALL: [Address; 4] = [
        Address::Handle,
        Address::Key,
        Address::KeyOfObject,
        Address::KeyOfPool,
    ];

    /// Those of which all RAM is within the limit: the maps of pools are not.
    pub(super) const BOUNDED: [Address; 3] = [Address::Handle, Address::Key, Address::KeyOfObject];

    pub(super) fn name(self) -> &'static str {
        match self {
            Address::Handle => "handle",
            Address::Key => "key, 1024 pages an object",
            Address::KeyOfObject => "key, a page an object",
            Address::KeyOfPool => "key, a page a pool",
        }
    }
}

/// Where pages are when they are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    Ram,
    Tier,
}

impl Home {
    /// What is added to the name of a kind.
    pub(super) fn name(self) -> &'static str {
        match self {
            Home::Ram => "",
            Home::Tier => ", in the tier only",
        }
    }
}

/// Bytes of RAM for another page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Its zpage, wherever that is.
    pub(super) zpage: f64,
    /// Frames of blocks.
    pub(super) frames: f64,
    /// Tables, and maps of pools and of places in the tier.
    pub(super) tables: f64,
}

impl Cost {
    /// Stores so many pages, and as many again; `None` where such pages have no such address.
    ///
    /// # Errors
    /// A page that was refused, did not leave for the tier or came back wrong.
    pub(super) fn of(
        kind: Kind,
        home: Home,
        address: Address,
        pages: u32,
    ) -> Result<Option<Cost>, String> {
        if kind == Kind::SameEphemeral && address == Address::Handle {
            return Ok(None);
        }
        let bytes_max = u64::from(pages) * 4 * PAGE_SIZE as u64;
        let mut client = Client::open(kind, address, bytes_max)?;
        let once = client.fill_to(pages, home)?;
        let twice = client.fill_to(2 * pages, home)?;
        client.compare()?;
        let a_page =
            |of: fn(&Stats) -> u64| (of(&twice) as f64 - of(&once) as f64) / f64::from(pages);
        Ok(Some(Cost {
            zpage: a_page(|stats| stats.compressed_bytes),
            frames: a_page(|stats| stats.pool_bytes),
            tables: a_page(|stats| stats.metadata_bytes),
        }))
    }

    /// All RAM of it.
    pub(super) fn ram(self) -> f64 {
        self.frames + self.tables
    }
}

/// How many pages fit a limit on RAM, most of them in a tier without one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) kind: Kind,
    pub(super) address: Address,
    pub(super) pages: u32,
    /// RAM of the store's limit.
    pub(super) limit_bytes: u64,
}

impl Bound {
    /// Stores pages until nothing more can leave.
    ///
    /// # Errors
    /// A refusal for another reason, or a page that came back wrong.
    pub(super) fn of(kind: Kind, address: Address, limit_bytes: u64) -> Result<Bound, String> {
        let mut client = Client::open(kind, address, limit_bytes)?;
        let mut refused = 0;
        while refused < REFUSALS {
            match client.store_next() {
                Ok(()) => refused = 0,
                Err(Rejected::PoolFull) => {
                    refused += 1;
                    client.store.reclaim(ROOM_BYTES);
                }
                Err(other) => return Err(format!("a page was refused: {other}")),
            }
        }
        client.compare()?;
        Ok(Bound {
            kind,
            address,
            pages: client.pages,
            limit_bytes,
        })
    }
}

/// A store over a tier in memory, and the names of its pages.
struct Client {
    store: Store,
    kind: Kind,
    address: Address,
    pages: u32,
    handles: Vec<Handle>,
    pools: Vec<PoolId>,
}

impl Client {
    /// One shard, so that what differs between pages is their kind and address alone.
    fn open(kind: Kind, address: Address, pool_bytes_max: u64) -> Result<Client, String> {
        let config = StoreConfig {
            pool_bytes_max,
            codec: Codec::FAST.into(),
            shards: 1,
            dictionaries: false,
            ..StoreConfig::default()
        };
        let store = Store::with_tier(&config, Box::new(MemoryTier::new(1)), None);
        let store = store.map_err(|error| error.to_string())?;
        let pools = match address {
            Address::Key | Address::KeyOfObject => vec![store.create_pool(kind.pool())],
            Address::Handle | Address::KeyOfPool => Vec::new(),
        };
        Ok(Client {
            store,
            kind,
            address,
            pages: 0,
            handles: Vec::new(),
            pools,
        })
    }

    fn key(&self, number: u32) -> Key {
        let (pool, object, index) = match self.address {
            Address::KeyOfPool => (self.pools[number as usize], 0, 0),
            Address::KeyOfObject => (self.pools[0], number, 0),
            Address::Handle | Address::Key => {
                (self.pools[0], number / OBJECT_PAGES, number % OBJECT_PAGES)
            }
        };
        Key {
            pool,
            object: ObjectId([u64::from(object), 0, 0]),
            index,
        }
    }

    fn store_next(&mut self) -> Result<(), Rejected> {
        let number = self.pages;
        let page = self.kind.page(number);
        if self.address == Address::Handle {
            self.handles.push(self.store.insert(&page)?);
        } else {
            if self.address == Address::KeyOfPool {
                self.pools.push(self.store.create_pool(self.kind.pool()));
            }
            self.store.put(&self.key(number), &page)?;
        }
        self.pages += 1;
        Ok(())
    }

    fn fill_to(&mut self, pages: u32, home: Home) -> Result<Stats, String> {
        while self.pages < pages {
            let stored = self.store_next();
            stored.map_err(|rejected| format!("a page was refused: {rejected}"))?;
        }
        if home == Home::Tier {
            self.store.reclaim(u64::MAX);
        }
        let stats = self.store.stats();
        stats.validate().map_err(|broken| broken.to_string())?;
        let expected = match home {
            Home::Ram => 0,
            Home::Tier => u64::from(pages),
        };
        match stats.swapped_pages == expected && stats.stored_pages == u64::from(pages) {
            true => Ok(stats),
            false => Err(format!(
                "of {pages} pages {} are stored, {} in the tier",
                stats.stored_pages, stats.swapped_pages
            )),
        }
    }

    /// Loads every page and compares it with what was stored.
    fn compare(&self) -> Result<(), String> {
        let mut out = [0; PAGE_SIZE];
        for number in 0..self.pages {
            let found = match self.address {
                Address::Handle => {
                    let handle = self.handles[number as usize];
                    self.store.load(handle, &mut out).map(|()| true)
                }
                _ => self.store.get(&self.key(number), &mut out),
            };
            let is_there = found.map_err(|error| error.to_string())?;
            if !is_there || out != self.kind.page(number) {
                return Err(format!("page {number} came back wrong"));
            }
        }
        Ok(())
    }
}
