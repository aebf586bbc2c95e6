//! Why a Service has no address, in words for the operator.

use std::net::IpAddr;

use roadstead_model::{IpFamily, ObjectName, Port, Protocol};

/// The cause, named as far as it is known: the pool, the address, the Service in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// `loadBalancerClass` names another controller.
    #[error("loadBalancerClass {0} belongs to another controller")]
    OtherClass(String),
    /// The Service has no `loadBalancerClass`, and this speaker serves a class that the operator named.
    #[error("has no loadBalancerClass, and this speaker serves a class")]
    NoClass,
    /// The Service is headless, or its cluster address is not assigned yet.
    #[error("the Service has no cluster address")]
    NoClusterIp,
    /// `ipFamilyPolicy: RequireDualStack` with the cluster address of one family alone.
    #[error("ipFamilyPolicy is RequireDualStack, but the Service has cluster addresses of one family only")]
    NeedsTwoClusterIps,
    /// `ipFamilyPolicy: RequireDualStack`, and only one family is held.
    #[error("ipFamilyPolicy is RequireDualStack, but only one address is held")]
    NeedsBoth,
    /// The address held is of no family that the Service has.
    #[error("the Service is of {}", list(.families))]
    OtherFamilies {
        /// Families of the Service's cluster addresses.
        families: Vec<IpFamily>,
    },
    /// Other addresses are asked for than those that are held.
    #[error("other addresses are requested")]
    OthersRequested,
    /// The request for addresses cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// More than two addresses were asked for.
    #[error("{0} addresses are requested, and a Service has at most one of each family")]
    TooMany(usize),
    /// What it holds cannot be judged while a part of the configuration cannot be read.
    #[error("its address is kept, but not announced, until the errors of the configuration are mended")]
    Withheld,
    /// Another node assigns, and its word has not come.
    #[error("waits for {0}, which assigns the addresses")]
    AssignedBy(String),
    /// This node may not assign yet, or not any more.
    #[error("waits for {0}")]
    NobodyAssigns(&'static str),
    /// The copies of the files on the nodes differ about the Service.
    #[error("waits until all nodes have read the same: the copy of {} differs", .0.join(", "))]
    CopiesDiffer(Vec<String>),
    /// What these nodes have read has not come.
    #[error("waits for word of what {} read", .0.join(", "))]
    CopiesUnknown(Vec<String>),
    /// The node that assigns has decided otherwise.
    #[error("{0} has assigned its addresses anew")]
    AssignedAnew(String),
    /// On two sides of a partition one address was given to two Services.
    #[error("{to} was assigned the same address and goes before")]
    Yielded {
        /// The Service that keeps it.
        to: ObjectName,
    },
    /// No IPAddressPool exists.
    #[error("there is no IPAddressPool")]
    NoPools,
    /// The pool asked for does not exist.
    #[error("there is no pool {0}")]
    UnknownPool(String),
    /// The pool asked for admits other namespaces or Services.
    #[error("pool {0} does not admit this Service (serviceAllocation)")]
    PoolRefuses(String),
    /// No pool that assigns automatically admits the Service.
    #[error("no pool with autoAssign admits this Service")]
    NoPoolForService,
    /// More than one address was asked for in one family.
    #[error("more than one {0} address is requested")]
    TwoOfOneFamily(IpFamily),
    /// The addresses asked for and the Service are of different families.
    #[error("the requested addresses are of {} but the Service is of {}", list(.requested), list(.service))]
    RequestedFamilies {
        /// Families of the addresses asked for.
        requested: Vec<IpFamily>,
        /// Families of the Service's cluster addresses.
        service: Vec<IpFamily>,
    },
    /// The address held or asked for lies in no pool.
    #[error("address {0} is in no pool")]
    InNoPool(IpAddr),
    /// A host outside the cluster answers for the address.
    #[error("address {0} is in use by another host of the segment")]
    Occupied(IpAddr),
    /// The address asked for does not lie in the pool asked for.
    #[error("address {ip} is not in pool {pool}, which is requested")]
    NotInPool {
        /// The address asked for.
        ip: IpAddr,
        /// The pool asked for.
        pool: String,
    },
    /// The pool leaves the address out: `avoidBuggyIPs`.
    #[error("address {ip} ends in .0 or .255, which pool {pool} avoids (avoidBuggyIPs)")]
    Buggy {
        /// The address asked for.
        ip: IpAddr,
        /// The pool that it lies in.
        pool: String,
    },
    /// Each of two addresses is in some pool, but no pool has both.
    #[error("the addresses are not in one pool")]
    NotInOnePool,
    /// Another Service has the address, and one of the two has no sharing key or another one.
    #[error("address {ip} is in use by {by}, which does not share it under the same key")]
    InUse {
        /// The address.
        ip: IpAddr,
        /// Its holder.
        by: ObjectName,
    },
    /// The sharing keys agree, the port is taken.
    #[error("port {port}/{protocol} of address {ip} is already in use by {by}")]
    PortInUse {
        /// The address.
        ip: IpAddr,
        /// Its holder.
        by: ObjectName,
        /// Transport protocol of the port.
        protocol: Protocol,
        /// The port that both want.
        port: Port,
    },
    /// The sharing keys agree, the endpoints would not: external traffic policy Local needs the same selector.
    #[error("address {ip} cannot be shared with {by}: externalTrafficPolicy or, with Local, the selectors differ")]
    PolicyDiffers {
        /// The address.
        ip: IpAddr,
        /// Its holder.
        by: ObjectName,
    },
    /// The pools have no range of the family at all.
    #[error("no {} range in pool {}", list(.families), .pools.join(", "))]
    FamilyNotInPools {
        /// The families asked for.
        families: Vec<IpFamily>,
        /// The pools that would serve.
        pools: Vec<String>,
    },
    /// Both families are needed from one pool, and no pool has a free address of each.
    #[error("no free IPv4 address together with an IPv6 address in pool {}", .pools.join(", "))]
    NoPair {
        /// The pools with ranges of both families.
        pools: Vec<String>,
    },
    /// Every address of the family is taken.
    #[error("no free {} address in pool {}", list(.families), .pools.join(", "))]
    Exhausted {
        /// The families asked for.
        families: Vec<IpFamily>,
        /// The pools that were tried.
        pools: Vec<String>,
    },
}

impl Reason {
    /// Whether nothing is wrong with the Service: it is to be served as soon as others have spoken.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::AssignedBy(_) | Self::NobodyAssigns(_) | Self::CopiesDiffer(_) | Self::CopiesUnknown(_))
    }
}

fn list(families: &[IpFamily]) -> String {
    families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
