//! The calls of etcd's API, over one connection.

use locks_api::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::messages::{
    AuthenticateRequest, AuthenticateResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRequest,
    LeaseResponse, LeaseRevokeResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};

/// The largest answer that is taken: a long list of locks, or a lock with a long queue.
const LARGEST_ANSWER: usize = 256 << 20;

/// A connection, and who we are over it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Caller {
    pub(crate) const fn new(channel: Channel) -> Self {
        Self { channel, token: None }
    }

    /// The same connection, with the token that a login gave.
    pub(crate) fn logged_in(self, token: &str) -> Result<Self> {
        let mut token: MetadataValue<Ascii> = token
            .parse()
            .map_err(|_| Error::new(ErrorKind::Backend, "the cluster's login token makes no sense"))?;
        token.set_sensitive(true);
        Ok(Self { token: Some(token), ..self })
    }

    pub(crate) async fn authenticate(
        &self,
        login: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, Status> {
        self.unary("/etcdserverpb.Auth/Authenticate", login).await
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        self.unary("/etcdserverpb.Maintenance/Status", StatusRequest {}).await
    }

    pub(crate) async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        self.unary("/etcdserverpb.KV/Range", range).await
    }

    pub(crate) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        self.unary("/etcdserverpb.KV/Txn", txn).await
    }

    pub(crate) async fn grant_lease(&self, ttl: i64) -> Result<LeaseGrantResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await
    }

    pub(crate) async fn revoke_lease(&self, id: i64) -> Result<LeaseRevokeResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseRevoke", LeaseRequest { id }).await
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> Result<LeaseResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseTimeToLive", LeaseRequest { id }).await
    }

    /// Keeps a lease alive once. A ttl of 0 in the answer says that there is no such lease.
    pub(crate) async fn keep_alive(&self, id: i64) -> Result<LeaseResponse, Status> {
        let messages = tokio_stream::once(LeaseRequest { id });
        let mut answers: Streaming<LeaseResponse> =
            self.stream("/etcdserverpb.Lease/LeaseKeepAlive", messages).await?;
        match answers.next().await {
            Some(answer) => answer,
            None => Err(Status::unavailable("the keep-alive was not answered")),
        }
    }

    /// Begins to watch. The server answers nothing before it got a first order, so one has to be sent already.
    pub(crate) async fn watch(
        &self,
        orders: mpsc::UnboundedReceiver<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, Status> {
        self.stream("/etcdserverpb.Watch/Watch", UnboundedReceiverStream::new(orders)).await
    }

    async fn unary<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = self.request(message);
        let answer =
            grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    async fn stream<S, Q, A>(&self, path: &'static str, messages: S) -> Result<Streaming<A>, Status>
    where
        S: tokio_stream::Stream<Item = Q> + Send + 'static,
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc().await?;
        let request = self.request(messages);
        let answers =
            grpc.streaming(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await?;
        Ok(answers.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        Ok(grpc)
    }

    /// A member that has lost the leader ends streams and refuses calls, instead of leaving them silent.
    fn request<M>(&self, message: M) -> Request<M> {
        let mut metadata = MetadataMap::new();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        Request::from_parts(metadata, tonic::Extensions::default(), message)
    }
}
