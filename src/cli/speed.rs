//! How fast a rehearsal's time passes.

use std::str::FromStr;
use std::time::Duration;

use crate::model::clock;

/// A paced rehearsal moves this often.
const PACING_INTERVAL: Duration = Duration::from_millis(50);

/// How fast virtual time passes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RehearsalSpeed {
    /// As fast as the machine can.
    #[default]
    Max,
    /// This many virtual seconds a second.
    Times(f64),
}

impl FromStr for RehearsalSpeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a speed: write max, realtime, or a factor such as 60x");
        match text {
            "max" => Ok(Self::Max),
            "realtime" => Ok(Self::Times(1.0)),
            factor => {
                let number: f64 = factor
                    .strip_suffix('x')
                    .ok_or_else(wrong)?
                    .parse()
                    .map_err(|_| wrong())?;
                if (0.01..=100_000.0).contains(&number) {
                    Ok(Self::Times(number))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

/// Paces the paused runtime it is called in. While a blocking task runs, paused time does not move by itself, so time
/// moves only here.
pub fn pace_virtual_time(speed: RehearsalSpeed) {
    let RehearsalSpeed::Times(factor) = speed else {
        return;
    };
    tokio::spawn(async move {
        loop {
            if tokio::task::spawn_blocking(|| clock::block_thread(PACING_INTERVAL))
                .await
                .is_err()
            {
                return;
            }
            tokio::time::advance(PACING_INTERVAL.mul_f64(factor)).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_written() {
        assert_eq!("max".parse(), Ok(RehearsalSpeed::Max));
        assert_eq!("60x".parse(), Ok(RehearsalSpeed::Times(60.0)));
        assert_eq!("realtime".parse(), Ok(RehearsalSpeed::Times(1.0)));
        for bad in ["fast", "x", "0x", "-1x", "60"] {
            assert!(bad.parse::<RehearsalSpeed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_paced_hour_takes_about_as_long_as_was_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let before = crate::model::Clock::system().now();
        runtime.block_on(async {
            pace_virtual_time(RehearsalSpeed::Times(18_000.0));
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        let took = crate::model::Clock::system().now().duration_since(before);
        assert!((150..3000).contains(&took.as_millis()), "{took}");
    }
}
