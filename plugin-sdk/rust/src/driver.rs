//! Runs an operator: from the calls of the interface to the methods of the author, and back.

use std::rc::Rc;

use crate::bindings::exports::wasmill::operator::migration::{Entries, Migrated};
use crate::bindings::exports::wasmill::operator::plugin;
use crate::bindings::exports::wasmill::operator::timed::Firings;
use crate::bindings::wasmill::operator::types::{Batch, Clock, Failure, Outcome};
use crate::column::Rows;
use crate::context::Context;
use crate::event::{Events, Timer};
use crate::host::{Host, NOT_STATEFUL};
use crate::metrics::Metrics;
use crate::output::Origin;
use crate::state::{Shared, SpaceInfo};
use crate::{Columns, ConfigError, Operator, Setup, config};

/// An open operator.
pub struct Driver<X> {
    operator: X,
    shared: Rc<Shared>,
    outputs: Rc<[String]>,
    metrics: Metrics,
    keyed: bool,
}

impl<X: Operator> Driver<X> {
    pub(crate) fn open(text: &[u8], host: Box<dyn Host>) -> Result<Self, ConfigError> {
        let shared = Shared::new(host);
        let mut setup = Setup::new(shared.clone(), X::OUTPUTS);
        let operator = X::open(config::parse(text)?, &mut setup)?;
        let spaces = shared.infos();
        if let Some(name) = twice(spaces.iter().map(|space| &space.name)) {
            return Err(ConfigError::new(format!("state space `{name}` is declared twice")));
        }
        if let Some(name) = twice(setup.outputs.iter()) {
            return Err(ConfigError::new(format!("output port `{name}` is declared twice")));
        }
        let stateful = shared.host.stateful();
        if !stateful && (!spaces.is_empty() || X::WATERMARKS) {
            return Err(ConfigError::new(NOT_STATEFUL));
        }
        Ok(Self { operator, shared, outputs: setup.outputs.into(), metrics: setup.metrics, keyed: stateful })
    }

    pub(crate) fn process(&mut self, port: u16, input: &Batch) -> Result<Outcome, Failure> {
        let events = Events::of(port, input);
        let (operator, outputs) = (&mut self.operator, &self.outputs);
        let slots = if self.keyed { begin(&self.shared, events.keys())? } else { Vec::new() };
        let mut ctx = Context::new(self.shared.clone(), outputs.clone(), events, Origin::Input, slots);
        let result = operator.batch(&mut ctx);
        self.end(ctx, result)
    }

    pub(crate) fn on_timers(&mut self, clock: Clock, fired: &Firings) -> Result<Outcome, Failure> {
        let tags = Rows::of(&fired.tags);
        let events = Events::fired(&fired.times, Rows::of(&fired.keys));
        let slots = begin(&self.shared, events.keys())?;
        let mut ctx = Context::new(self.shared.clone(), self.outputs.clone(), events, Origin::Timers, slots);
        let operator = &mut self.operator;
        ctx.each(|event, ctx| {
            let timer = Timer { clock, time: event.time, key: event.key, tag: tags.get(event.row as usize) };
            operator.timer(timer, ctx)
        });
        self.end(ctx, Ok(()))
    }

    pub(crate) fn on_watermark(&mut self, watermark: i64) -> Result<Outcome, Failure> {
        let slots = begin(&self.shared, Rows::default())?;
        let events = Events::default();
        let mut ctx = Context::new(self.shared.clone(), self.outputs.clone(), events, Origin::Watermark, slots);
        let result = self.operator.watermark(watermark, &mut ctx);
        self.end(ctx, result)
    }

    fn end(&self, mut ctx: Context<'_>, result: Result<(), Failure>) -> Result<Outcome, Failure> {
        let slots = ctx.take_slots();
        let result =
            result.and_then(|()| if self.keyed { self.shared.finish(&slots).map_err(Failure::Fatal) } else { Ok(()) });
        match result {
            Ok(()) => {
                self.metrics.send(&*self.shared.host);
                Ok(ctx.outcome())
            }
            Err(failure) => {
                self.shared.abandon();
                self.metrics.clear();
                Err(failure)
            }
        }
    }

    pub(crate) fn migrate(&self, space: u16, from_version: u32, entries: &Entries) -> Result<Migrated, Failure> {
        self.shared.migrate(space, from_version, entries)
    }

    pub(crate) fn flush(&mut self) {
        self.shared.assert_usable();
        if self.keyed {
            self.shared.flush();
        }
    }

    /// What the plugin says about itself under its configuration.
    pub(crate) fn describe(&self, name: &str, version: &str) -> plugin::Descriptor {
        let spaces = self.shared.infos();
        let keys = if spaces.is_empty() { Columns::NONE } else { Columns::KEYS };
        let mut descriptor = blank::<X>(name, version);
        descriptor.outputs = self.outputs.to_vec();
        descriptor.columns = (X::COLUMNS | keys).into();
        descriptor.spaces = spaces.into_iter().map(Into::into).collect();
        descriptor
    }
}

/// The slots of the rows' keys. Without a key column every row has the empty key.
fn begin(shared: &Shared, keys: Rows<'_>) -> Result<Vec<u32>, Failure> {
    shared.assert_usable();
    shared.begin(keys).map_err(Failure::Fatal)
}

/// What an operator says about itself as long as there is no configuration to open it with.
pub(crate) fn blank<X: Operator>(name: &str, version: &str) -> plugin::Descriptor {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    plugin::Descriptor {
        name: name.to_owned(),
        version: version.to_owned(),
        inputs: names(X::INPUTS),
        outputs: names(X::OUTPUTS),
        spaces: Vec::new(),
        columns: X::COLUMNS.into(),
        watermarks: X::WATERMARKS,
    }
}

fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

impl From<SpaceInfo> for plugin::Space {
    fn from(info: SpaceInfo) -> Self {
        let ttl = info.ttl.map(|(clock, micros)| plugin::Ttl { clock, micros });
        Self { name: info.name, schema_version: info.version, ttl }
    }
}
