package store

import "context"

// How many calls the writer commits between two checkpoints. A busy writer then
// finds most of the log moved already when it has to start the log anew, and the
// log stays small enough for a quick start. The sync at the end of a checkpoint
// holds up the commits beside it, for longer the more there is to sync: some ten
// milliseconds after 4,000 calls. A writer whose calls come alone has time for
// shorter ones.
const (
	checkpointEvery = 4000
	checkpointLone  = 500
)

// checkpointer moves committed pages from the write-ahead log into the database
// beside the writer, who would otherwise do it in the middle of a commit.
type checkpointer struct {
	bell chan struct{}
	done chan struct{}
}

func startCheckpointer(s *Store) *checkpointer {
	c := &checkpointer{bell: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for range c.bell {
			// A failure is not one of the data: the writer checkpoints by itself
			// when the log has become long, and reports what it meets.
			var busy, log, moved int
			_ = s.read.QueryRowContext(context.Background(), s.dialect.checkpoint).Scan(&busy, &log, &moved)
		}
	}()
	return c
}

// nudge never blocks.
func (c *checkpointer) nudge() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// stop waits for a checkpoint under way. nudge must not be called any more.
func (c *checkpointer) stop() {
	close(c.bell)
	<-c.done
}
