//! Who may come: source ranges, Basic and external authentication, and how they go together (nginx's access phase).

use std::sync::Arc;

use http::{
    HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, LOCATION},
};
use roadstead_routes::{Access, Auth, Guard, Satisfy};

use super::{
    ClientRequest, RequestFacts, Visit, access::admit_address, basic::admit_user, external::ask_service, stages::Stage,
};
use crate::answer::{AnswerBody, plain};

/// Why a request may not go on: the answer that it gets.
pub(super) type Refusal = Box<Response<AnswerBody>>;

/// A refusal without further words.
pub(super) fn refuse(status: StatusCode) -> Refusal {
    Box::new(plain(status))
}

/// Lets those on who may come. Costs a route without any such setting two looks.
pub(super) async fn who(visit: &mut Visit<'_>, request: &mut ClientRequest) -> Stage {
    let settings = &visit.route.settings;
    let path = visit.route.path.as_ref().map_or("/", |(_, path)| path);
    let guarded = settings.auth.guards(path);
    if settings.access.is_open() && !guarded {
        return Stage::Continue(());
    }
    let route = Arc::clone(&visit.route);
    let (access, auth) = (&route.settings.access, &route.settings.auth);
    let admitted = match auth.satisfy {
        _ if !guarded => admit_address(access, visit.origin.peer).map_err(refuse),
        // Somebody else may have to be asked, which needs room that few requests do.
        Satisfy::All => Box::pin(all(access, auth, visit, request)).await,
        Satisfy::Any => Box::pin(any(access, auth, visit, request)).await,
    };
    if guarded && !auth.basic.is_unset() {
        // The endpoint has no use for a password that was meant for us.
        request.headers_mut().remove(AUTHORIZATION);
    }
    match admitted {
        Ok(()) => Stage::Continue(()),
        Err(refusal) => Stage::Break(sign_in(auth, visit, request, *refusal)),
    }
}

async fn all(access: &Access, auth: &Auth, visit: &mut Visit<'_>, request: &mut ClientRequest) -> Result<(), Refusal> {
    admit_address(access, visit.origin.peer).map_err(refuse)?;
    match &auth.basic {
        Guard::Unset => {}
        Guard::Wrong => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE)),
        Guard::Set(basic) => admit_user(basic, visit, request.headers()).await?,
    }
    match &auth.external {
        Guard::Unset => Ok(()),
        Guard::Wrong => Err(refuse(StatusCode::SERVICE_UNAVAILABLE)),
        Guard::Set(external) => ask_service(external, visit, request).await,
    }
}

/// The first check that lets the request on decides. Where none does, 401 goes before 403: it tells what would help. What cannot
/// be read lets nobody on, and neither does what cannot be asked.
async fn any(access: &Access, auth: &Auth, visit: &mut Visit<'_>, request: &mut ClientRequest) -> Result<(), Refusal> {
    let mut worst = None;
    if !access.is_open() {
        match admit_address(access, visit.origin.peer) {
            // A deny list alone lets nobody on by itself, it only keeps out.
            Ok(()) if access.allow.is_unset() => {}
            Ok(()) => return Ok(()),
            Err(status) => note(&mut worst, refuse(status))?,
        }
    }
    match &auth.basic {
        Guard::Unset => {}
        Guard::Wrong => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE)),
        Guard::Set(basic) => match admit_user(basic, visit, request.headers()).await {
            Ok(()) => return Ok(()),
            Err(refusal) => note(&mut worst, refusal)?,
        },
    }
    match &auth.external {
        Guard::Unset => {}
        Guard::Wrong => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE)),
        Guard::Set(external) => match ask_service(external, visit, request).await {
            Ok(()) => return Ok(()),
            Err(refusal) => note(&mut worst, refusal)?,
        },
    }
    worst.map_or(Ok(()), Err)
}

/// Remembers a refusal; one that is neither 401 nor 403 is an error that ends the request, as in nginx.
fn note(worst: &mut Option<Refusal>, refusal: Refusal) -> Result<(), Refusal> {
    match refusal.status() {
        StatusCode::UNAUTHORIZED => *worst = Some(refusal),
        StatusCode::FORBIDDEN => drop(worst.get_or_insert(refusal)),
        _ => return Err(refusal),
    }
    Ok(())
}

/// Sends a client without credentials to where it gets some, if the Ingress names such a place.
fn sign_in(
    auth: &Auth,
    visit: &Visit<'_>,
    request: &ClientRequest,
    refusal: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let signin = auth.external.set().and_then(|external| external.signin.as_ref());
    let Some(signin) = signin.filter(|_| refusal.status() == StatusCode::UNAUTHORIZED) else { return refusal };
    let Ok(location) = HeaderValue::from_bytes(&signin.render(&RequestFacts::of(visit, request))) else {
        return refusal;
    };
    let mut response = plain(StatusCode::FOUND);
    response.headers_mut().insert(LOCATION, location);
    response
}
