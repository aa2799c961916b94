//! What a guest returned, held against the contract: only what passes here reaches the engine.

use wasmill_contract::OperatorError;
use wasmill_model::{
    self as model, Bitmap, Column, ColumnSet, Descriptor, Emission, Folded, Migrated, Outcome, Output, Rejected,
    Results, Rows, SpaceDescriptor, Ttl,
};

use crate::capability::state::VALUE_BYTES_MAX;
use crate::world::World;
use crate::{InstanceLimits, abi, text};

/// Of a rejection and of a failure.
pub(crate) const REASON_BYTES_MAX: usize = 1 << 10;
const NAME_BYTES_MAX: usize = 128;
const PORTS_MAX: usize = 64;
const SPACES_MAX: usize = 64;

/// What a call was given, as far as its result must fit it.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) call: &'static str,
    /// Rows of the input; `None` where rows have no origin.
    pub(crate) rows: Option<usize>,
    /// Output ports.
    pub(crate) ports: usize,
    pub(crate) limits: &'a InstanceLimits,
}

impl Given<'_> {
    fn broken(&self, reason: impl Into<String>) -> OperatorError {
        OperatorError::Contract { call: self.call, reason: reason.into() }
    }

    fn column(&self, what: &str, column: abi::Column) -> Result<Column, OperatorError> {
        column.into_model().map_err(|error| self.broken(format!("{what}: {error}")))
    }

    /// The outcome of `process`, `on-timers` or `on-watermark`.
    pub(crate) fn outcome(&self, outcome: abi::Outcome) -> Result<Outcome, OperatorError> {
        let mut rows_out = 0u64;
        let mut emissions = Vec::with_capacity(outcome.emissions.len());
        for emission in outcome.emissions {
            if usize::from(emission.port) >= self.ports {
                let (port, ports) = (emission.port, self.ports);
                return Err(self.broken(format!("an emission for port {port} where {ports} are declared")));
            }
            let output = self.output(emission.output)?;
            rows_out += match &output {
                Output::Rows(rows) => rows.values.len(),
                Output::Unchanged | Output::Keep(_) | Output::Values(_) => self.rows.unwrap_or(0),
            } as u64;
            if rows_out > self.limits.rows_out {
                let limit = format!("{} rows out of one call", self.limits.rows_out);
                return Err(OperatorError::Limit { call: self.call, limit });
            }
            emissions.push(Emission { port: emission.port, output });
        }
        Ok(Outcome { emissions, rejected: self.rejected(outcome.rejected)? })
    }

    fn output(&self, output: abi::Output) -> Result<Output, OperatorError> {
        let rows = self.rows.unwrap_or(0);
        match output {
            abi::Output::Unchanged => Ok(Output::Unchanged),
            abi::Output::Keep(words) => {
                let got = words.len();
                Bitmap::from_words(words, rows).map(Output::Keep).ok_or_else(|| {
                    self.broken(format!("a bitmap of {got} words where {rows} rows take {}", rows.div_ceil(64)))
                })
            }
            abi::Output::Values(column) => {
                let values = self.column("values", column)?;
                if values.len() != rows {
                    return Err(self.broken(format!("{} values for {rows} rows", values.len())));
                }
                Ok(Output::Values(values))
            }
            abi::Output::Rows(made) => self.rows_made(made).map(Output::Rows),
        }
    }

    fn rows_made(&self, made: abi::Rows) -> Result<Rows, OperatorError> {
        let abi::Rows { batch: abi::Batch { times, keys, values }, origins } = made;
        let (keys, values) = (self.column("keys of rows", keys)?, self.column("values of rows", values)?);
        let rows = values.len();
        for (what, got) in [("times", times.len()), ("keys", keys.len())] {
            if got != 0 && got != rows {
                return Err(self.broken(format!("{got} {what} for {rows} rows: one each, or none")));
            }
        }
        match self.rows {
            None if !origins.is_empty() => {
                return Err(self.broken(format!("{} origins where rows have none", origins.len())));
            }
            None => {}
            Some(input) => {
                if origins.len() != rows {
                    return Err(self.broken(format!("{} origins for {rows} rows", origins.len())));
                }
                if let Some(origin) = origins.iter().find(|&&origin| origin as usize >= input) {
                    return Err(self.broken(format!("a row from input row {origin} of {input}")));
                }
            }
        }
        Ok(Rows { times, keys, values, origins })
    }

    fn rejected(&self, rejected: Vec<abi::Rejected>) -> Result<Vec<Rejected>, OperatorError> {
        let rows = self.rows.unwrap_or(0);
        if let Some(Rejected { row, .. }) = rejected
            .iter()
            .find(|rejected| rejected.row as usize >= rows)
            .map(|rejected| Rejected { row: rejected.row, reason: String::new() })
        {
            return Err(self.broken(format!("row {row} rejected of {rows}")));
        }
        let mut rejected: Vec<Rejected> = rejected
            .into_iter()
            .map(|rejected| Rejected { row: rejected.row, reason: text::clean(rejected.reason, REASON_BYTES_MAX) })
            .collect();
        rejected.sort_by_key(|rejected| rejected.row);
        rejected.dedup_by_key(|rejected| rejected.row);
        Ok(rejected)
    }

    /// The result of `fold` over `accumulators` accumulators.
    pub(crate) fn folded(&self, folded: abi::Folded, accumulators: usize) -> Result<Folded, OperatorError> {
        let folded = Folded {
            rejected: self.rejected(folded.rejected)?,
            accumulators: self.accumulators(folded.accumulators, accumulators)?,
        };
        Ok(folded)
    }

    /// Accumulators that a call returned where it must return `count`.
    pub(crate) fn accumulators(&self, column: abi::Column, count: usize) -> Result<Column, OperatorError> {
        let accumulators = self.column("accumulators", column)?;
        if accumulators.len() != count {
            return Err(self.broken(format!("{} accumulators instead of {count}", accumulators.len())));
        }
        Ok(accumulators)
    }

    /// The result of `migrate`.
    pub(crate) fn migrated(&self, migrated: abi::Migrated) -> Result<Migrated, OperatorError> {
        let entries = self.rows.unwrap_or(0);
        let values = self.column("values", migrated.values)?;
        if values.len() != entries {
            return Err(self.broken(format!("{} values for {entries} entries", values.len())));
        }
        if let Some(long) = values.iter().find(|value| value.len() > VALUE_BYTES_MAX) {
            let limit = format!("{VALUE_BYTES_MAX} bytes in a value, not {}", long.len());
            return Err(OperatorError::Limit { call: self.call, limit });
        }
        let mut dropped = migrated.dropped;
        dropped.sort_unstable();
        dropped.dedup();
        match dropped.last().filter(|&&last| last as usize >= entries) {
            Some(last) => Err(self.broken(format!("entry {last} of {entries} goes"))),
            None => Ok(Migrated { values, dropped }),
        }
    }

    /// The result of `finish` for `panes` panes.
    pub(crate) fn results(&self, results: abi::Results, panes: usize) -> Result<Results, OperatorError> {
        let values = self.column("results", results.values)?;
        if values.len() as u64 > self.limits.rows_out {
            let limit = format!("{} rows out of one call", self.limits.rows_out);
            return Err(OperatorError::Limit { call: self.call, limit });
        }
        if results.panes.is_empty() && values.len() != panes {
            return Err(self.broken(format!("{} results for {panes} panes, and none says its pane", values.len())));
        }
        if !results.panes.is_empty() && results.panes.len() != values.len() {
            return Err(self.broken(format!("{} places of panes for {} results", results.panes.len(), values.len())));
        }
        if let Some(pane) = results.panes.iter().find(|&&pane| pane as usize >= panes) {
            return Err(self.broken(format!("a result of pane {pane} of {panes}")));
        }
        Ok(Results { values, panes: results.panes })
    }
}

/// What a plugin says about itself.
pub(crate) fn descriptor(said: abi::Descriptor, world: &World) -> Result<Descriptor, OperatorError> {
    let broken = |reason: String| OperatorError::Contract { call: "describe", reason };
    let name = |what: &str, name: String| {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let shown = text::clean(name, NAME_BYTES_MAX);
            return Err(broken(format!(
                "{what} {shown:?}: a name has 1 to {NAME_BYTES_MAX} bytes and no control characters"
            )));
        }
        Ok(name)
    };
    let names = |what: &str, given: Vec<String>, most: usize| {
        if given.len() > most {
            return Err(broken(format!("{} {what}s, {most} are allowed", given.len())));
        }
        let given = given.into_iter().map(|given| name(what, given)).collect::<Result<Vec<_>, _>>()?;
        match given.iter().enumerate().find(|(place, name)| given[..*place].contains(name)) {
            Some((_, twice)) => Err(broken(format!("{what} {twice:?} is declared twice"))),
            None => Ok(given),
        }
    };
    if said.inputs.is_empty() {
        return Err(broken("no input port is declared".into()));
    }
    if said.watermarks && !world.is_timed() {
        return Err(broken("it wants watermarks, but does not export `timed`".into()));
    }
    let space_names = said.spaces.iter().map(|space| space.name.clone()).collect();
    names("state space", space_names, SPACES_MAX)?;
    Ok(Descriptor {
        name: name("name", said.name)?,
        version: text::clean(said.version, NAME_BYTES_MAX),
        inputs: names("input port", said.inputs, PORTS_MAX)?,
        outputs: names("output port", said.outputs, PORTS_MAX)?,
        spaces: said
            .spaces
            .into_iter()
            .map(|space| SpaceDescriptor {
                name: space.name,
                schema_version: space.schema_version,
                ttl: space.ttl.map(|ttl| Ttl { clock: model::Clock::from(ttl.clock), micros: ttl.micros }),
            })
            .collect(),
        columns: ColumnSet {
            times: said.columns.contains(abi::Columns::TIMES),
            keys: said.columns.contains(abi::Columns::KEYS),
            values: said.columns.contains(abi::Columns::VALUES),
        },
        watermarks: said.watermarks,
        timed: world.is_timed(),
        aggregate: world.is_aggregate(),
        migrates: world.migrates(),
    })
}
