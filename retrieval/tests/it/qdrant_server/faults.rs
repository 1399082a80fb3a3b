//! What tests let go wrong.

use std::sync::Mutex;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::lock;

/// The troubles of a server; none at first.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Troubles>);

#[derive(Default)]
struct Troubles {
    failing: Option<Failing>,
    delay: Duration,
}

struct Failing {
    calls: usize,
    code: Code,
    retry_after_s: Option<u64>,
}

impl Faults {
    /// The next `calls` calls fail like this.
    pub(crate) fn fail(&self, calls: usize, code: Code, retry_after_s: Option<u64>) {
        lock(&self.0).failing = Some(Failing {
            calls,
            code,
            retry_after_s,
        });
    }

    /// Every call takes this much longer.
    pub(crate) fn delay(&self, delay: Duration) {
        lock(&self.0).delay = delay;
    }

    pub(super) async fn strike(&self) -> Result<(), Status> {
        let delay = lock(&self.0).delay;
        tokio::time::sleep(delay).await;
        let mut troubles = lock(&self.0);
        let Some(failing) = troubles.failing.as_mut().filter(|failing| failing.calls > 0) else {
            return Ok(());
        };
        failing.calls -= 1;
        let mut metadata = MetadataMap::new();
        if let Some(seconds) = failing.retry_after_s {
            metadata.insert("retry-after", seconds.into());
        }
        Err(Status::with_metadata(
            failing.code,
            "a fault of the test",
            metadata,
        ))
    }
}
