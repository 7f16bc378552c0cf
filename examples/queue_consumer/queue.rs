//! The queue: one stream, read by one group of consumers. What is not acknowledged is delivered again.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Value, cmd};

use crate::broker::Broker;

const STREAM: &str = "orders";
const GROUP: &str = "bookkeepers";
/// How long a message is with a consumer before it is given to another, in milliseconds.
const PATIENCE: u32 = 50;

/// What a producer sends.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) order: String,
    pub(crate) amount: u32,
}

/// A message, as it is delivered.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// By which it is acknowledged. A second copy of a message has another one, so it is no key.
    pub(crate) id: String,
    pub(crate) message: Message,
}

#[derive(Clone)]
pub(crate) struct Queue {
    connection: MultiplexedConnection,
}

impl Queue {
    pub(crate) async fn open(broker: &Broker) -> RedisResult<Self> {
        let mut connection = broker.connect().await?;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(STREAM).arg(GROUP).arg("0").arg("MKSTREAM");
        create.query_async::<()>(&mut connection).await?;
        Ok(Self { connection })
    }

    pub(crate) async fn send(&self, message: &Message) -> RedisResult<()> {
        let mut add = cmd("XADD");
        add.arg(STREAM).arg("*").arg("order").arg(&message.order);
        add.arg("amount").arg(message.amount).query_async(&mut self.connection.clone()).await
    }

    /// Some messages: first those that were with another consumer for too long, then new ones.
    pub(crate) async fn receive(&self, consumer: &str) -> RedisResult<Vec<Delivery>> {
        let mut connection = self.connection.clone();
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(STREAM).arg(GROUP).arg(consumer).arg(PATIENCE).arg("0").arg("COUNT").arg(8);
        let claimed: (Value, Value, Value) = claim.query_async(&mut connection).await?;
        let again = deliveries(claimed.1)?;
        if !again.is_empty() {
            return Ok(again);
        }
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(consumer).arg("COUNT").arg(8);
        read.arg("STREAMS").arg(STREAM).arg(">");
        let read: Option<Vec<(String, Value)>> = read.query_async(&mut connection).await?;
        match read.and_then(|mut streams| streams.pop()) {
            Some((_, entries)) => deliveries(entries),
            None => Ok(Vec::new()),
        }
    }

    pub(crate) async fn acknowledge(&self, delivery: &Delivery) -> RedisResult<()> {
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(STREAM).arg(GROUP).arg(&delivery.id);
        acknowledge.query_async(&mut self.connection.clone()).await
    }

    /// How many messages nobody has acknowledged, delivered or not.
    pub(crate) async fn left(&self) -> RedisResult<usize> {
        let mut connection = self.connection.clone();
        let pending: (usize, Value, Value, Value) =
            cmd("XPENDING").arg(STREAM).arg(GROUP).query_async(&mut connection).await?;
        Ok(pending.0 + self.unread(&mut connection).await?)
    }

    async fn unread(&self, connection: &mut MultiplexedConnection) -> RedisResult<usize> {
        let groups: Vec<Vec<Value>> =
            cmd("XINFO").arg("GROUPS").arg(STREAM).query_async(connection).await?;
        let fields = groups.into_iter().next().unwrap_or_default();
        let lag = fields.chunks(2).find_map(|pair| {
            let name = String::from_redis_value(pair.first()?.clone()).ok()?;
            if name == "lag" { usize::from_redis_value(pair.get(1)?.clone()).ok() } else { None }
        });
        Ok(lag.unwrap_or(0))
    }
}

fn deliveries(entries: Value) -> RedisResult<Vec<Delivery>> {
    let entries: Vec<(String, Vec<String>)> = FromRedisValue::from_redis_value(entries)?;
    let delivery = |(id, fields): (String, Vec<String>)| {
        let field = |name: &str| {
            let mut pairs = fields.chunks(2);
            pairs.find(|pair| pair[0] == name).map(|pair| pair[1].clone()).unwrap_or_default()
        };
        let amount = field("amount").parse().unwrap_or_default();
        Delivery { id, message: Message { order: field("order"), amount } }
    };
    Ok(entries.into_iter().map(delivery).collect())
}
