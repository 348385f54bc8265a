use tokio::io::AsyncWriteExt;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_peer_is_an_address_of_ipv4_or_a_network_of_ipv6() {
    for (one, other, same) in [
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ("192.0.2.1", "192.0.2.2", false),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ("::1", "127.0.0.1", false),
    ] {
        assert_eq!(peer(address(one)) == peer(address(other)), same, "{one} {other}");
    }
}

#[test]
fn every_client_is_accepted_and_the_oldest_connection_of_the_most_goes() {
    let connections = Arc::new(Connections::default());
    let (few, mut few_gone) = connections.accept(address("198.51.100.1"));
    let (holder, mut holder_gone) = connections.accept(address("192.0.2.1"));
    assert!(connections.take_slot(holder.id));
    let mut many: Vec<_> = (0..MAX_CONNECTIONS - 2).map(|_| connections.accept(address("192.0.2.1"))).collect();
    let is_gone = |gone: &mut oneshot::Receiver<()>| gone.try_recv() == Err(oneshot::error::TryRecvError::Closed);
    assert!(many.iter_mut().all(|(_, gone)| !is_gone(gone)));
    let (next, mut next_gone) = connections.accept(address("192.0.2.1"));
    assert!(is_gone(&mut many[0].1) && !is_gone(&mut many[1].1));
    assert!(!is_gone(&mut next_gone) && !is_gone(&mut few_gone) && !is_gone(&mut holder_gone));
    assert!(!connections.take_slot(many[0].0.id), "it is closed");
    assert_eq!(connections.lock().all.len(), MAX_CONNECTIONS);
    drop((many, few, holder, next));
    assert!(connections.lock().all.is_empty());
}

#[tokio::test(start_paused = true)]
async fn slots_are_few_for_each_peer_and_in_all() {
    let connections = Arc::new(Connections::default());
    let accept = |number: usize| connections.accept(address(&format!("192.0.2.{number}"))).0;
    let mut handles = Vec::new();
    for number in 0..MAX_SLOTS {
        handles.push(accept(number / MAX_SLOTS_OF_A_PEER));
        assert!(handles[number].slot().await && handles[number].slot().await, "{number}: the second is the same");
        if number == MAX_SLOTS_OF_A_PEER - 1 {
            assert!(!accept(0).slot().await, "one more of the same peer");
        }
    }
    assert!(!accept(200).slot().await, "one more in all");
    // A waiting caller gets the next place, whether it was returned or dropped.
    let next = accept(200);
    let (got, ()) = tokio::join!(next.slot(), async { handles[0].give_slot_back() });
    assert!(got);
    let after = accept(201);
    let (got, ()) = tokio::join!(after.slot(), async { drop(handles.pop()) });
    assert!(got);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_ends_and_one_that_is_read_gives_its_slot_back() {
    let connections = Arc::new(Connections::default());
    let (handle, _gone) = connections.accept(address("192.0.2.1"));
    let handle = Arc::new(handle);
    let (ours, mut theirs) = tokio::io::duplex(16);
    let mut stream = ClientStream::new(ours, handle.clone());
    let holds = || connections.lock().all[&handle.id].has_slot;
    assert!(handle.slot().await);
    stream.write_all(b"short").await.unwrap();
    assert!(holds());
    stream.flush().await.unwrap();
    assert!(!holds());
    assert!(handle.slot().await);
    let begin = Instant::now();
    let failed = stream.write_all(&[0; 64]).await.unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    assert!(begin.elapsed() >= ANSWER_PATIENCE && holds(), "until the connection ends");
    let mut rest = [0; 16];
    tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut rest).await.unwrap();
}
