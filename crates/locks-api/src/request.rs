//! What the futures of this crate wait for: an answer of the engine.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use crate::busy::Busy;
use crate::caller::{Caller, Manner};
use crate::engine::{Answer, Engine, TicketKey, Wish};
use crate::error::Error;
use crate::locks::Handle;
use crate::observe::Span;

/// A caller's request, from the first poll to the answer. Dropping it takes the request back.
///
/// It gives way now and then: a task that takes one free lock after the other never waits, and would keep its thread for itself.
pub(crate) struct Request {
    handle: Arc<Handle>,
    span: Span,
    state: State,
}

enum State {
    New(Wish),
    Waiting(TicketKey),
    Over,
}

impl Request {
    pub(crate) fn new(handle: Arc<Handle>, wish: Wish) -> Self {
        let span = Span::acquire(handle.engine.guarantees().backend, &wish.name);
        Self { handle, span, state: State::New(wish) }
    }

    /// All of these wishes in one step of the store, sent now.
    pub(crate) fn together(handle: &Arc<Handle>, mut wishes: Vec<Wish>) -> Vec<Self> {
        for wish in &mut wishes {
            wish.caller = Caller::here(wish.caller.manner);
        }
        let backend = handle.engine.guarantees().backend;
        let spans: Vec<Span> = wishes.iter().map(|wish| Span::acquire(backend, &wish.name)).collect();
        let tickets = handle.engine.acquire_together(wishes);
        let requests = spans.into_iter().zip(tickets);
        requests
            .map(|(span, ticket)| Self { handle: Arc::clone(handle), span, state: State::Waiting(ticket) })
            .collect()
    }

    /// How many are before it and why it has to wait, as far as is known.
    pub(crate) fn standing(&self) -> (Option<u64>, Option<Busy>) {
        match self.state {
            State::Waiting(ticket) => self.handle.engine.standing(ticket),
            State::New(_) | State::Over => (None, None),
        }
    }
}

impl Request {
    /// Says how it is waited for from now on, and refuses what could never end.
    pub(crate) fn continue_as(&mut self, manner: Manner) -> Result<(), Error> {
        match &mut self.state {
            State::New(wish) => wish.caller.manner = manner,
            State::Waiting(ticket) => self.handle.engine.continue_as(*ticket, Caller::here(manner))?,
            State::Over => {}
        }
        Ok(())
    }
}

impl Future for Request {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let budget = ready!(poll_proceed(context));
        let this = &mut *self;
        let (engine, state) = (&this.handle.engine, &mut this.state);
        this.span.within(|| {
            let answer = match std::mem::replace(state, State::Over) {
                State::New(mut wish) => {
                    wish.caller = Caller::here(wish.caller.manner);
                    let (ticket, answer) = engine.acquire(wish, context);
                    *state = State::Waiting(ticket);
                    answer
                }
                State::Waiting(ticket) => {
                    *state = State::Waiting(ticket);
                    engine.poll(ticket, context)
                }
                State::Over => Poll::Pending,
            };
            if answer.is_ready() {
                *state = State::Over;
                budget.made_progress();
            }
            answer
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let State::Waiting(ticket) = self.state
            && !self.handle.engine.is_forked()
        {
            self.handle.engine.abandon(ticket);
        }
    }
}

/// Waits until the engine has confirmed something. Dropping it changes nothing about that.
pub(crate) struct Confirmation {
    engine: Arc<Engine>,
    ticket: Option<TicketKey>,
}

impl Confirmation {
    pub(crate) fn new(engine: Arc<Engine>, ticket: TicketKey) -> Self {
        Self { engine, ticket: Some(ticket) }
    }
}

impl Future for Confirmation {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        let answer = self.engine.poll(ticket, context);
        if answer.is_ready() {
            self.ticket = None;
        }
        answer
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && !self.engine.is_forked()
        {
            self.engine.abandon(ticket);
        }
    }
}

/// Runs `body` until it ends or `lost` does, whichever comes first; the body goes first.
pub(crate) async fn until_lost<B: Future, L: Future>(body: B, lost: L) -> Result<B::Output, L::Output> {
    let mut body = pin!(body);
    let mut lost = pin!(lost);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = body.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        lost.as_mut().poll(context).map(Err)
    })
    .await
}
