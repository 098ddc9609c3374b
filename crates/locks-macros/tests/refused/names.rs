//! Names that can't be.
#![allow(unused)]

use locks_macros::customlock;

#[customlock("fancylock{q}")]
fn no_such_argument(x: u32, y: u32, z: u32) {}

#[customlock("fancylock{x}")]
fn no_argument_at_all() {}

#[customlock("{self.id}")]
fn no_method(x: u32) {}

#[customlock("fancylock{}")]
fn not_said_which(x: u32) {}

#[customlock("fancylock{x.len()}")]
fn a_call(x: String) {}

#[customlock("fancylock{x + 1}")]
fn an_expression(x: u32) {}

#[customlock("fancylock{x:width$}")]
fn a_width(x: u32, width: usize) {}

#[customlock("fancylock{x")]
fn open(x: u32) {}

#[customlock("fancylock}")]
fn closed(x: u32) {}

#[customlock("")]
fn empty(x: u32) {}

#[customlock("a\0b")]
fn nul(x: u32) {}

#[customlock(7)]
fn number(x: u32) {}

#[customlock(|x| format!("{x}"))]
fn too_few(x: u32, y: u32) {}

#[customlock(async |x| format!("{x}"))]
fn awaited(x: u32) {}

#[customlock(|x| format!("{x:?}"))]
fn not_one_argument((x, y): (u32, u32)) {}

#[customlock("a", label = "{q}")]
fn label(x: u32) {}

fn main() {}
