//! Reading a flat list of fields, one after the other, with a word for what each should have been.

use std::fmt::Display;
use std::str::FromStr;

use redis::Value;

/// One field as it came.
#[derive(Clone, Copy, Debug)]
enum Field<'a> {
    Number(i64),
    Text(&'a str),
}

/// The fields of an answer, read in order.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    what: &'static str,
    fields: Vec<Field<'a>>,
    at: usize,
}

impl<'a> Fields<'a> {
    /// Fields of a flat array of strings and integers.
    pub(crate) fn of_value(what: &'static str, value: &'a Value) -> Result<Fields<'a>, String> {
        let Value::Array(values) = value else {
            return Err(format!("{what} is no array but {}", shortened(&format!("{value:?}"))));
        };
        let field = |(place, value): (usize, &'a Value)| match value {
            Value::Int(number) => Ok(Field::Number(*number)),
            Value::SimpleString(text) => Ok(Field::Text(text)),
            Value::BulkString(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Field::Text(text)),
                Err(_) => Err(format!("field {} of {what} is no UTF-8", place + 1)),
            },
            other => {
                let other = shortened(&format!("{other:?}"));
                Err(format!("field {} of {what} is {other}, neither string nor integer", place + 1))
            }
        };
        let fields = values.iter().enumerate().map(field).collect::<Result<_, _>>()?;
        Ok(Fields { what, fields, at: 0 })
    }

    /// Fields joined by newlines.
    pub(crate) fn of_lines(what: &'static str, text: &'a str) -> Fields<'a> {
        Fields { what, fields: text.split('\n').map(Field::Text).collect(), at: 0 }
    }

    fn next(&mut self, name: &str) -> Result<Field<'a>, String> {
        let field = self.fields.get(self.at).copied();
        self.at += 1;
        field.ok_or_else(|| format!("{} ends before field {} (`{name}`)", self.what, self.at))
    }

    fn wrong(&self, name: &str, said: &dyn Display, wanted: &str) -> String {
        let said = shortened(&said.to_string());
        format!("field {} (`{name}`) of {} is `{said}`, not {wanted}", self.at, self.what)
    }

    /// A string. A field that came as an integer is none.
    pub(crate) fn text(&mut self, name: &str) -> Result<&'a str, String> {
        match self.next(name)? {
            Field::Text(text) => Ok(text),
            Field::Number(number) => Err(self.wrong(name, &number, "a string")),
        }
    }

    /// A number of the wanted width.
    pub(crate) fn number<T: TryFrom<i64> + FromStr>(&mut self, name: &str) -> Result<T, String> {
        let (found, said): (Option<T>, &dyn Display) = match self.next(name)? {
            Field::Number(number) => (T::try_from(number).ok(), &number.clone()),
            Field::Text(text) => (text.parse().ok(), &text.to_owned()),
        };
        found.ok_or_else(|| self.wrong(name, said, "a number in its bounds"))
    }

    /// 0 or 1.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.number::<u8>(name)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(name, &other, "0 or 1")),
        }
    }

    /// The count of a list whose entries have `width` fields: no more than there are fields.
    pub(crate) fn count(&mut self, name: &str, width: usize) -> Result<usize, String> {
        let count: usize = self.number(name)?;
        let left = self.fields.len() - self.at;
        if count.checked_mul(width).is_none_or(|needed| needed > left) {
            return Err(self.wrong(name, &count, &format!("a count of entries: {left} fields follow")));
        }
        Ok(count)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.fields.len().checked_sub(self.at) {
            Some(0) => Ok(()),
            left => Err(format!("{} has {} fields too many", self.what, left.unwrap_or_default())),
        }
    }

    /// An error about the field read last.
    pub(crate) fn bad(&self, name: &str, said: &dyn Display, wanted: &str) -> String {
        self.wrong(name, said, wanted)
    }
}

/// Enough of it for a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
