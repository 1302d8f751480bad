package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode"
)

// Case 10: a power cut. kill -9 does not show whether the program waits for its
// disk, since the kernel keeps what was written. So the test traces what the
// server asks of the kernel (pwrite, fdatasync, ftruncate on the database and
// its log) while it works, and builds from the trace what a disk could hold if
// the power had gone at a given moment.
//
// Why this is sound. A disk promises one thing: what was written to a file
// before a sync of it is there after the sync has returned. Of everything
// younger, each sector may be there or not, in any order. So for a moment
// between two calls the test takes the files as of their last finished syncs
// (base) and adds nothing, all, or a random choice of the sectors written since.
// Sectors of a file's new end that are left out are zero. The tracer stops the
// server at each call and writes its line before the server goes on; a client
// notes the length of the trace when it has read an acknowledgement. So a change
// whose note is not beyond the moment was acknowledged before it, and has to be
// in the image.
//
// What is not simulated: a disk that lies about syncs, a torn sector, and a file
// whose name is lost although its content was synced (file systems write both).
// The file of shared memory beside the log is not durable and not read after a
// crash.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	tracer, err := exec.LookPath("strace")
	if err != nil {
		t.Skipf("what reaches the disk is seen by strace, which is missing: %v", err)
	}
	d := newDesk(t)
	before := files{}
	for _, name := range traced() {
		before[name] = read(t, filepath.Join(d.dir, name))
	}
	trace := filepath.Join(t.TempDir(), "trace")
	// -D makes the tracer the child, so that the server is ours to kill; it ends
	// with the server.
	d.wrap = []string{
		tracer, "-D", "-f", "-y", "-xx", "-s", "1000000", "-e", "signal=none",
		"-e", "trace=pwrite64,pwritev,write,fdatasync,fsync,sync_file_range,ftruncate,unlink,unlinkat,rename,renameat,renameat2",
		"-o", trace,
	}
	d.start(t, "")
	r := receive(t, briefly)
	h := d.subscribe(t, r.url, nil, "ticket.updated")
	l := newLoad(t, d)
	l.mark = func() int64 { return length(t, trace) }
	// Checkpoints are the harder half. One is due after so many transactions, and
	// an empty one, as the readiness probe makes, counts like any other. Without
	// load the checkpoint is complete, and the next write begins the log anew.
	for range form(2, 5) {
		l.start(t, 400)
		l.reach(t, l.count()+form(150, 250))
		l.end()
		probe(t, d, 1100)
	}
	l.start(t, 400)
	l.reach(t, l.count()+form(50, 250))
	if *long {
		probe(t, d, 1100)
	}
	l.end()
	d.kill(t)

	ops := parseTrace(t, trace)
	acked := l.acknowledged()
	t.Logf("%d acknowledged changes, %s", len(acked), describe(ops))
	c := cutter{before: before, ops: ops, acked: acked, dir: t.TempDir(), random: rand.New(rand.NewPCG(1, 2))}
	images := c.cutAt(t, c.moments(form(20, 150)))
	t.Logf("%d images of power cuts hold every change that was acknowledged before", images)

	c.unsynced = true
	if missing := c.missing(t, len(ops), nothing); len(missing) == 0 {
		t.Error("a store that never syncs passes: the simulation proves nothing")
	}
	c.unsynced = false
	c.revive(t, d, r, h)
}

// probe asks n times whether the server is ready.
func probe(t *testing.T, d *desk, n int) {
	t.Helper()
	var all sync.WaitGroup
	for range people {
		all.Go(func() {
			for range n / people {
				if !d.ready(t) {
					t.Error("the server is not ready")
				}
			}
		})
	}
	all.Wait()
}

// traced are the files whose content has to survive.
func traced() []string { return []string{"ticketwire.db", "ticketwire.db-wal"} }

type files map[string][]byte

// read returns a file's content; one that is missing is empty.
func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return b
}

func length(t *testing.T, name string) int64 {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Error(err)
		return 0
	}
	return st.Size()
}

// op is one call on one of the files.
type op struct {
	file  string
	call  string // write, sync or truncate
	at    int64
	data  []byte
	end   int64 // where its line ends in the trace
	since int   // of a sync: how many ops had begun when it began; it covers those
}

var (
	line   = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resume = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>`)
	target = regexp.MustCompile(`^\d+<([^>]*)>(?:, )?(.*)$`)
	failed = regexp.MustCompile(`\) += -1 `)
)

// parseTrace reads the trace. A write counts from its beginning, a sync from its
// end. What it cannot explain fails the test: a call that it does not know could
// be the one that matters.
func parseTrace(t *testing.T, name string) []op {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	var ops []op
	open := map[string]op{} // syncs that have begun, by thread
	for pos := int64(0); ; {
		text, err := in.ReadString('\n')
		if err == io.EOF {
			return ops
		}
		if err != nil {
			t.Fatal(err)
		}
		pos += int64(len(text))
		text = strings.TrimSuffix(text, "\n")
		if m := resume.FindStringSubmatch(text); m != nil {
			if o, begun := open[m[1]]; begun && !failed.MatchString(text) {
				o.end = pos
				ops = append(ops, o)
			}
			delete(open, m[1])
			continue
		}
		m := line.FindStringSubmatch(text)
		if m == nil {
			continue // the end of a thread
		}
		o, ours := parseCall(t, m[2], m[3])
		if !ours || failed.MatchString(text) {
			continue
		}
		o.end, o.since = pos, len(ops)
		if o.call == "sync" && strings.Contains(text, "<unfinished") {
			open[m[1]] = o
			continue
		}
		ops = append(ops, o)
	}
}

// parseCall reads a call; ours is false for files that do not count.
func parseCall(t *testing.T, call, args string) (o op, ours bool) {
	t.Helper()
	m := target.FindStringSubmatch(args)
	if m == nil {
		if strings.HasPrefix(call, "rename") || strings.HasPrefix(call, "unlink") {
			t.Fatalf("the server removed or renamed a file under load: %.300s", args)
		}
		return op{}, false
	}
	o.file = filepath.Base(unhex(t, m[1]))
	if !slices.Contains(traced(), o.file) {
		return op{}, false
	}
	rest := strings.Split(strings.TrimSpace(m[2]), ", ")
	switch call {
	case "pwrite64":
		o.call, o.data = "write", []byte(unhex(t, strings.Trim(rest[0], `"`)))
		o.at = integer(t, rest[2])
		if want := integer(t, rest[1]); int64(len(o.data)) != want {
			t.Fatalf("a write of %d bytes is in the trace with %d", want, len(o.data))
		}
	case "fdatasync", "fsync":
		o.call = "sync"
	case "ftruncate":
		o.call, o.at = "truncate", integer(t, rest[0])
	default:
		t.Fatalf("the simulation does not know %s on %s", call, o.file)
	}
	return o, true
}

// unhex decodes the \x.. of the trace.
func unhex(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	for len(s) > 0 {
		if !strings.HasPrefix(s, `\x`) {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		v, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteByte(byte(v))
		s = s[4:]
	}
	return b.String()
}

// integer reads the number at the start of s.
func integer(t *testing.T, s string) int64 {
	t.Helper()
	end := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsDigit(r) })
	if end < 0 {
		end = len(s)
	}
	v, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func describe(ops []op) string {
	n := map[string]int{}
	restarts := 0
	for _, o := range ops {
		n[o.file+" "+o.call]++
		if strings.HasSuffix(o.file, "-wal") && o.call == "write" && o.at == 0 {
			restarts++
		}
	}
	return fmt.Sprintf("calls %v, the log began %d times", n, restarts)
}

// sector is what a disk writes as a whole.
const sector = 512

// choice says which of the unsynced sectors are on the disk.
type choice func(*rand.Rand) bool

func nothing(*rand.Rand) bool    { return false }
func everything(*rand.Rand) bool { return true }
func some(r *rand.Rand) bool     { return r.IntN(2) == 0 }

// cutter makes the images.
type cutter struct {
	before   files
	ops      []op
	acked    []change
	dir      string
	random   *rand.Rand
	unsynced bool // as if no sync had been asked for
	made     int
}

// moments chooses n positions in ops, half of them where the database itself is
// written: checkpoints are rare, and a cut in one is the harder case.
func (c *cutter) moments(n int) []int {
	var inDatabase []int
	for i, o := range c.ops {
		if o.file == "ticketwire.db" {
			inDatabase = append(inDatabase, i)
		}
	}
	out := []int{len(c.ops)}
	for i := range n {
		at := c.random.IntN(len(c.ops))
		if i%2 == 0 && len(inDatabase) > 0 {
			at = inDatabase[c.random.IntN(len(inDatabase))] + 1
		}
		out = append(out, at)
	}
	return out
}

// image returns the files of a cut after the first n ops.
func (c *cutter) image(n int, keep choice) files {
	synced := map[string]int{} // ops of the file before this are on the disk
	if !c.unsynced {
		for _, o := range c.ops[:n] {
			if o.call == "sync" {
				synced[o.file] = max(synced[o.file], o.since)
			}
		}
	}
	out := files{}
	for name, content := range c.before {
		out[name] = bytes.Clone(content)
	}
	for i, o := range c.ops[:n] {
		durable := i < synced[o.file]
		switch {
		case o.call == "write" && durable:
			out[o.file] = put(out[o.file], o.at, o.data)
		case o.call == "write":
			for from := 0; from < len(o.data); {
				// To the end of the sector in the file.
				to := min(len(o.data), from+sector-int((o.at+int64(from))%sector))
				if keep(c.random) {
					out[o.file] = put(out[o.file], o.at+int64(from), o.data[from:to])
				}
				from = to
			}
		case o.call == "truncate" && (durable || keep(c.random)):
			out[o.file] = resize(out[o.file], o.at)
		}
	}
	return out
}

func put(b []byte, at int64, data []byte) []byte {
	if end := at + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[at:], data)
	return b
}

func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

// write puts an image into a directory of its own.
func (c *cutter) write(t *testing.T, f files) (dir string) {
	t.Helper()
	c.made++
	dir = filepath.Join(c.dir, strconv.Itoa(c.made))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range f {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// cutAt makes and checks the images of every moment.
func (c *cutter) cutAt(t *testing.T, moments []int) (images int) {
	t.Helper()
	for _, n := range moments {
		for name, keep := range map[string]choice{"nothing": nothing, "everything": everything, "some": some} {
			if missing := c.missing(t, n, keep); len(missing) > 0 {
				t.Errorf("a cut after call %d with %s of what was not synced loses %d acknowledged changes, the first %+v",
					n, name, len(missing), missing[0])
			}
			images++
			if t.Failed() {
				return images
			}
		}
	}
	return images
}

// missing opens an image and returns the changes that were acknowledged before
// the cut and are not in it. Anything else that is wrong with it is an error.
func (c *cutter) missing(t *testing.T, n int, keep choice) (missing []change) {
	t.Helper()
	dir := c.write(t, c.image(n, keep))
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "ticketwire.db")
	intact(t, file)
	db := openDatabase(t, file)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "select body from events where event_type = 'ticket.updated' order by seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	known, newest := map[change]bool{}, map[string]string{}
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			t.Fatal(err)
		}
		var ev event
		if err := json.Unmarshal(body, &ev); err != nil {
			t.Errorf("an event of the image is %q: %v", body, err)
		}
		known[change{ticket: ev.Data.TicketID, updatedAt: ev.Data.UpdatedAt}] = true
		newest[ev.Data.TicketID] = ev.Data.Title
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	// What was one transaction is there as a whole or not at all: each event with
	// the row of its delivery, or its place in a list of what was handed over.
	if n := number(t, db, `select count(*) from (select
			(select count(*) from deliveries d where d.tenant_id = e.tenant_id and d.event_id = e.event_id) as made,
			exists (select 1 from handovers h where instr(h.list, unhex(replace(e.event_id, '-', ''))) > 0) as listed
		from events e where e.event_type = 'ticket.updated') where made > 1 or made = 0 and not listed`); n > 0 {
		t.Errorf("%d events of the image have not one delivery", n)
	}
	for id, title := range newest {
		if number(t, db, "select count(*) from tickets where ticket_id = ? and title = ?", id, title) != 1 {
			t.Errorf("ticket %s of the image is not as its newest event says", id)
		}
	}
	end := int64(0)
	if n > 0 {
		end = c.ops[n-1].end
	}
	for _, a := range c.acked {
		if a.mark <= end && !known[change{ticket: a.ticket, updatedAt: a.updatedAt}] {
			missing = append(missing, a)
		}
	}
	return missing
}

// revive starts the server on an image and lets it deliver what is owed there.
func (c *cutter) revive(t *testing.T, d *desk, r *receiver, h hook) {
	t.Helper()
	dir := c.write(t, c.image(len(c.ops)*2/3, some))
	db := openDatabase(t, filepath.Join(dir, "ticketwire.db"))
	owed := number(t, db, "select count(*) from deliveries where status = 'pending'") +
		number(t, db, `select count(*) from events e where event_type = 'ticket.updated' and not exists (
			select 1 from deliveries d where d.tenant_id = e.tenant_id and d.event_id = e.event_id)`) // handed over
	events := number(t, db, "select count(*) from events where event_type = 'ticket.updated'")
	db.Close()
	if err := os.WriteFile(filepath.Join(dir, "secret.key"), read(t, filepath.Join(d.dir, "secret.key")), 0o600); err != nil {
		t.Fatal(err)
	}
	old := len(r.arrived())
	revived := d.restored(dir)
	revived.start(t, "")
	revived.drain(t, patience)
	got := r.arrived()[old:]
	if len(got) != owed {
		t.Errorf("%d deliveries went out after the power came back, %d were owed", len(got), owed)
	}
	if feed := revived.feed(t, "ticket.updated"); len(feed) != events {
		t.Errorf("the feed has %d events, the image had %d", len(feed), events)
	}
	checkLog(t, revived, h, got, 1)
	t.Logf("a server on an image with %d events sent the %d that were owed", events, owed)
}
