//! The core against a bookkeeper that shares no code with it: laws on random histories, all interleavings of
//! small cases, and named cases from other people's bugs.

mod books;
mod desk;
mod exhaustive;
mod judge;
mod laws;
mod member_due;
mod member_loss;
mod member_moved;
mod member_words;
mod regress;
mod shared;
