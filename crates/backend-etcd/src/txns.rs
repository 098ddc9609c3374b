//! Transactions, piece by piece.

use crate::error::strange;
use crate::keys::end_of;
use crate::messages::{
    Answer, Compare, DeleteRequest, Op, PutRequest, RangeRequest, RangeResponse, Relation, Request, Response,
    Revision, Target, TxnRequest, TxnResponse,
};

/// Keys that nobody has written: none that begin like this.
pub(crate) fn none_at(beginning: &[u8]) -> Compare {
    none_in(beginning.to_vec(), end_of(beginning))
}

pub(crate) fn none_in(key: Vec<u8>, end: Vec<u8>) -> Compare {
    compare(key, end, Relation::Equal, Revision::Created(0))
}

/// This key is the one that was created at this revision; 0 for one that is not there.
pub(crate) fn created_at(key: &[u8], revision: i64) -> Compare {
    compare(key.to_vec(), Vec::new(), Relation::Equal, Revision::Created(revision))
}

/// This key was written at this revision; 0 for one that is not there.
pub(crate) fn modified_at(key: &[u8], revision: i64) -> Compare {
    compare(key.to_vec(), Vec::new(), Relation::Equal, Revision::Modified(revision))
}

/// Nothing that begins like this was written after this revision.
pub(crate) fn unchanged_since(beginning: &[u8], revision: i64) -> Compare {
    let (key, end) = (beginning.to_vec(), end_of(beginning));
    compare(key, end, Relation::Less, Revision::Modified(revision.saturating_add(1)))
}

fn compare(key: Vec<u8>, end: Vec<u8>, relation: Relation, revision: Revision) -> Compare {
    let target = match revision {
        Revision::Created(_) => Target::Created,
        Revision::Modified(_) => Target::Modified,
    };
    Compare { relation: relation as i32, target: target as i32, key, end, revision: Some(revision) }
}

pub(crate) fn put(key: &[u8], value: Vec<u8>, lease: i64) -> Request {
    of(Op::Put(PutRequest { key: key.to_vec(), value, lease, ..PutRequest::default() }))
}

/// Another value under the same lease.
pub(crate) fn replace(key: &[u8], value: Vec<u8>) -> Request {
    of(Op::Put(PutRequest { key: key.to_vec(), value, keep_lease: true, ..PutRequest::default() }))
}

/// The same value under another lease.
pub(crate) fn carry(key: &[u8], lease: i64) -> Request {
    of(Op::Put(PutRequest { key: key.to_vec(), lease, keep_value: true, ..PutRequest::default() }))
}

pub(crate) fn delete(key: &[u8]) -> Request {
    of(Op::Delete(DeleteRequest { key: key.to_vec(), end: Vec::new() }))
}

/// All keys that begin like this.
pub(crate) fn range(beginning: &[u8]) -> Request {
    let (key, end) = (beginning.to_vec(), end_of(beginning));
    of(Op::Range(RangeRequest { key, end, ..RangeRequest::default() }))
}

/// One key.
pub(crate) fn get(key: &[u8]) -> Request {
    of(Op::Range(RangeRequest { key: key.to_vec(), ..RangeRequest::default() }))
}

pub(crate) fn of(op: Op) -> Request {
    Request { op: Some(op) }
}

/// This, if all of these are true.
pub(crate) fn when(compare: Vec<Compare>, success: Vec<Request>) -> TxnRequest {
    TxnRequest { compare, success, failure: Vec::new() }
}

/// All of these, each by itself, in one.
pub(crate) fn all(txns: Vec<TxnRequest>) -> TxnRequest {
    when(Vec::new(), txns.into_iter().map(|txn| of(Op::Txn(txn))).collect())
}

/// The answers to the parts of [`all`].
pub(crate) fn parts(answer: TxnResponse, count: usize) -> locks_api::Result<Vec<TxnResponse>> {
    let part = |response: Response| match response.answer {
        Some(Answer::Txn(answer)) => Ok(answer),
        other => Err(strange(other)),
    };
    let parts = answer.responses.into_iter().map(part).collect::<locks_api::Result<Vec<_>>>()?;
    if parts.len() == count { Ok(parts) } else { Err(strange("another number of answers than of questions")) }
}

/// The ranges among the answers, in order.
pub(crate) fn ranges(responses: Vec<Response>) -> Vec<RangeResponse> {
    let range = |response: Response| match response.answer {
        Some(Answer::Range(range)) => Some(range),
        _ => None,
    };
    responses.into_iter().filter_map(range).collect()
}

/// The revision of an answer.
pub(crate) fn revision(answer: &TxnResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}
