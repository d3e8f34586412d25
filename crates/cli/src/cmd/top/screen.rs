//! The terminal: another screen while `top` runs, single keys, and all as it was at the end.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use tokio::sync::mpsc;

/// Another screen, without cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The cursor, and the screen that was.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the corner; what was there is written over, so that nothing flickers.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const BOLD: &str = "\x1b[1m";
const REVERSE: &str = "\x1b[7m";
const PLAIN: &str = "\x1b[0m";

/// Rows and columns of a terminal that does not tell.
const USUAL: (u16, u16) = (24, 80);

/// What a person typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Other,
}

/// The terminal while it is ours. Dropping it restores it.
pub(super) struct Screen {
    /// How stdin was set before; `None` if it is no terminal.
    before: Option<Termios>,
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Its settings cannot be read or changed, or it cannot be written to.
    pub(super) fn enter() -> io::Result<Screen> {
        let (send, keys) = mpsc::channel(8);
        let mut screen = Screen { before: None, keys };
        if io::stdin().is_terminal() {
            let before = termios::tcgetattr(io::stdin())?;
            let mut single = before.clone();
            // A key at a time, and not shown. Ctrl-C and Ctrl-Z stay signals.
            single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            single.special_codes[SpecialCodeIndex::VMIN] = 1;
            single.special_codes[SpecialCodeIndex::VTIME] = 0;
            termios::tcsetattr(io::stdin(), OptionalActions::Now, &single)?;
            screen.before = Some(before);
            std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&send))?;
        }
        write(ENTER)?;
        Ok(screen)
    }

    /// The next key; never, if there are none to come.
    pub(super) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Draws `lines` as far as they fit: the first in bold, and `trouble` below it so that it is seen.
    ///
    /// # Errors
    /// The terminal's.
    pub(super) fn draw(&self, lines: &[String], trouble: Option<&str>) -> io::Result<()> {
        let size = termios::tcgetwinsize(io::stdout());
        let (rows, columns) = size.map_or(USUAL, |size| (size.ws_row, size.ws_col));
        let (rows, columns) = if rows == 0 || columns == 0 { USUAL } else { (rows, columns) };
        write(&frame(lines, trouble, usize::from(rows), usize::from(columns)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to restore.
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

fn read_keys(send: &mpsc::Sender<Key>) {
    for byte in io::stdin().lock().bytes().map_while(Result::ok) {
        let key = if matches!(byte, b'q' | b'Q') { Key::Quit } else { Key::Other };
        if send.blocking_send(key).is_err() {
            return;
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// One whole picture of `rows` by `columns`.
fn frame(lines: &[String], trouble: Option<&str>, rows: usize, columns: usize) -> String {
    let cut = |line: &str| line.chars().take(columns).collect::<String>();
    let mut picture: Vec<String> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        picture.push(if number == 0 { format!("{BOLD}{}{PLAIN}", cut(line)) } else { cut(line) });
        if let Some(trouble) = trouble.filter(|_| number == 0) {
            let first = trouble.lines().next().unwrap_or_default();
            picture.push(format!("{REVERSE}{}{PLAIN}", cut(first)));
        }
    }
    // The last row is for the hint, also when the table is longer.
    picture.truncate(rows.saturating_sub(1));
    picture.push(cut("q ends"));
    let body = picture.join(&format!("{CLEAR_LINE}\r\n"));
    format!("{HOME}{body}{CLEAR_LINE}{CLEAR_BELOW}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_never_larger_than_the_terminal() {
        let lines: Vec<String> = (0..50).map(|n| format!("{n}{}", "x".repeat(200))).collect();
        let picture = frame(&lines, Some("it is gone\n  mend: wait"), 10, 40);
        assert_eq!(picture.matches("\r\n").count(), 9);
        for line in picture.split("\r\n") {
            let mut seen = line.to_owned();
            for code in [HOME, CLEAR_LINE, CLEAR_BELOW, BOLD, REVERSE, PLAIN] {
                seen = seen.replace(code, "");
            }
            assert!(seen.chars().count() <= 40, "{seen:?}");
        }
        assert!(picture.contains("it is gone") && !picture.contains("mend"));
        assert!(picture.ends_with(&format!("q ends{CLEAR_LINE}{CLEAR_BELOW}")));
    }
}
