//! Sizes, durations, rates and counts: read from people, written for people.

use std::time::Duration;

/// Reads a size: `512`, `512k`, `10MiB`, `1.5GB`. One letter, and the `iB` forms, are powers of
/// 1024; `kB`, `MB`, `GB` and `TB` are powers of 1000.
///
/// # Errors
/// A sentence with the forms that are understood.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 512, 64k, 10MiB or 1.5GB");
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number = number.replace('_', "");
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .ok_or_else(|| format!("{text:?} is too large"));
    }
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && value * (factor as f64) < u64::MAX as f64 => {
            Ok((value * factor as f64) as u64)
        }
        _ => Err(wrong()),
    }
}

/// Reads a duration: `90s`, `1d`, `1h 30m`, `500ms`; a number alone is seconds.
///
/// # Errors
/// A sentence with the forms that are understood.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text.trim())
        .map_err(|_| format!("{text:?} is not a duration; write 500ms, 90s, 15m, 1h or 1d"))
}

/// Reads a duration as whole milliseconds.
///
/// # Errors
/// As [`parse_duration`].
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    u64::try_from(parse_duration(text)?.as_millis()).map_err(|_| format!("{text:?} is too long"))
}

/// `61.2 MiB`; plain `512 B` below one KiB.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would print as 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1,000,000`.
pub(crate) fn count_text(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 key`, `2,000 keys`.
pub(crate) fn plural(count: u64, singular: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {singular}{s}", count_text(count))
}

/// `1 damaged function library`, of this kind.
pub(crate) fn libraries_text(count: u64, kind: &str) -> String {
    let noun = if count == 1 { "library" } else { "libraries" };
    format!("{} {kind} {noun}", count_text(count))
}

/// How many in a second; 0 for no time at all.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        (count as f64 / seconds) as u64
    } else {
        0
    }
}

/// Two units at most: `350ms`, `12s`, `3m 20s`, `2d 4h`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit_seconds, unit, below, below_seconds) = match seconds {
        0 => return format!("{}ms", duration.as_millis()),
        1..60 => return format!("{seconds}s"),
        60..3_600 => (60, "m", "s", 1),
        3_600..86_400 => (3_600, "h", "m", 60),
        _ => (86_400, "d", "h", 3_600),
    };
    let rest = seconds % unit_seconds / below_seconds;
    let whole = count_text(seconds / unit_seconds);
    if rest == 0 {
        format!("{whole}{unit}")
    } else {
        format!("{whole}{unit} {rest}{below}")
    }
}

/// A moment in Unix milliseconds as `2026-01-02T03:04:05.678Z`; far ones as the plain number.
pub(crate) fn time_text(unix_ms: u64) -> String {
    // humantime knows the years up to 9999.
    const YEAR_10000_MS: u64 = 253_402_300_800_000;
    if unix_ms >= YEAR_10000_MS {
        return format!("{unix_ms}ms");
    }
    let moment = std::time::UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(moment).to_string()
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names a key in a JSON object: as text, or in hex where it is none.
pub fn put_key(object: &mut serde_json::Value, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(text) => object["key"] = text.into(),
        Err(_) => object["key_hex"] = hex(key).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512k", 512 << 10),
            ("10MiB", 10 << 20),
            ("10 MiB", 10 << 20),
            ("1g", 1 << 30),
            ("1kB", 1_000),
            ("1.5GB", 1_500_000_000),
            ("1_000", 1_000),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "10x", "1e3", "99999999999999999999", "1.2.3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_size("18446744073709551615k").is_err());
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration_ms("1d"), Ok(86_400_000));
        assert_eq!(parse_duration_ms("90s"), Ok(90_000));
        assert_eq!(parse_duration_ms("500ms"), Ok(500));
        assert_eq!(parse_duration_ms("1h 30m"), Ok(5_400_000));
        assert_eq!(parse_duration_ms("30"), Ok(30_000));
        for text in ["", "x", "-1s", "1 parsec"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1024), "1.0 KiB");
        assert_eq!(bytes_text((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes_text(64_172_851), "61.2 MiB");
        assert!(bytes_text(u64::MAX).ends_with("PiB"));
        assert_eq!(count_text(0), "0");
        assert_eq!(count_text(999), "999");
        assert_eq!(count_text(1_000), "1,000");
        assert_eq!(count_text(12_345_678), "12,345,678");
        assert_eq!(plural(1, "key"), "1 key");
        assert_eq!(plural(0, "key"), "0 keys");
        assert_eq!(duration_text(Duration::from_millis(350)), "350ms");
        assert_eq!(duration_text(Duration::from_secs(200)), "3m 20s");
        assert_eq!(duration_text(Duration::from_secs(3_600)), "1h");
        assert_eq!(duration_text(Duration::from_secs(187_200)), "2d 4h");
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(u64::MAX), "18446744073709551615ms");
        assert_eq!(per_second(500, Duration::from_millis(500)), 1_000);
    }
}
