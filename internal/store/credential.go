package store

import (
	"sync"
	"time"
)

// What a key opens is read from three tables, for each call that presents it. A key
// that is used often is remembered for a moment, which spares a server a round trip
// for each call.
//
// A change of a key, its owner or its tenant counts from the next call on where this
// process makes it, since the commit forgets all keys before it is answered. Another
// node of a server hears of it by a hint within milliseconds. Where no hint comes, as
// behind a pooler or when two processes have an embedded database open, it counts
// after keyMemory.
const (
	keyMemory = time.Second
	maxKeys   = 10_000 // over it, all are forgotten
)

// credentials are what this process remembers of keys. The zero value is ready, and
// it is safe for concurrent use.
type credentials struct {
	mu    sync.RWMutex
	turns int // how often all were forgotten
	known map[string]knownKey
}

type knownKey struct {
	credential
	from, until time.Time
}

// of returns what is remembered of the key with a hash. turn is for keep, when
// nothing is.
func (k *credentials) of(hash string, now time.Time) (c credential, turn int, found bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	known, found := k.known[hash]
	// A clock that was set back must not make a key live longer.
	found = found && now.Before(known.until) && !now.Before(known.from)
	return known.credential, k.turns, found
}

// keep remembers what was read since of has given the turn, unless a change may have
// come in between.
func (k *credentials) keep(hash string, c credential, now time.Time, turn int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.turns != turn {
		return
	}
	if k.known == nil || len(k.known) >= maxKeys {
		k.known = map[string]knownKey{}
	}
	k.known[hash] = knownKey{c, now, now.Add(keyMemory)}
}

// forget makes every key be read again.
func (k *credentials) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.turns++
	clear(k.known)
}
