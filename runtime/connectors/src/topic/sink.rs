use std::sync::Arc;

use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, TopicName, Visibility};
use wasmill_store::{Append, Producer, Topic, TopicConfig};

use super::{config, error, topic_name};
use crate::Site;
use crate::error::off_worker;
use crate::options::{ConfigError, parse};
use crate::outbox::{self, OutboxOptions, RowId, Target};

struct TopicSinkFactory {
    site: Site,
    topic: TopicName,
    partitions: Option<u32>,
    outbox: OutboxOptions,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    let config: config::SinkConfig = parse(options)?;
    if config.partitions == Some(0) {
        return Err(ConfigError::of("partitions", "`partitions` is at least 1"));
    }
    Ok(Arc::new(TopicSinkFactory {
        site: site.clone(),
        topic: topic_name(&config.topic)?,
        partitions: config.partitions,
        outbox: config.outbox.options("outbox")?,
    }))
}

impl SinkFactory for TopicSinkFactory {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities::retract(Visibility::Deduplicated)
    }

    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        Box::pin(async move {
            let (topics, name, partitions) = (self.site.topics.clone(), self.topic.clone(), self.partitions);
            let topic = off_worker(move || {
                let opened = match partitions {
                    Some(partitions) => {
                        topics.open_or_create(&name, TopicConfig { partitions, ..TopicConfig::default() })
                    }
                    None => topics.open(&name),
                };
                opened.map_err(error)
            })
            .await?;
            let location = format!("topic {}", self.topic);
            let target = TopicTarget { topic };
            outbox::open(&self.site, share, recovered, clock, self.outbox, location, target).await
        })
    }
}

struct TopicTarget {
    topic: Arc<Topic>,
}

impl Target for TopicTarget {
    fn deliver<'a>(&'a mut self, first: RowId<'a>, rows: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            let name: Arc<str> = first.writer.as_str().into();
            let producer = Producer { name, epoch: first.epoch.0, index: first.index };
            let append = |(partition, rows)| Append { partition, rows, producer: Some(producer.clone()) };
            let appends = self.topic.deal(rows, first.index).into_iter().map(append).collect();
            self.topic.append(appends).await.map(drop).map_err(error)
        })
    }
}
