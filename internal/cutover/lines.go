package cutover

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// lines is a file of JSON values, one on a line, that only grows. Several
// processes may append to it at the same time. It is safe for concurrent use.
//
// An append is one write at the end of the file, and it begins with a line
// break: whatever a process that was killed, or a disk that was full, left
// behind there is a line of its own, which readers drop.
type lines struct {
	mu   sync.Mutex
	file *os.File
}

func openLines(name string) (*lines, error) {
	_, err := os.Stat(name)
	made := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if made {
		if err := syncDir(filepath.Dir(name)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &lines{file: f}, nil
}

// append writes the values and returns when they are on disk. After an error
// none, some or all of them are.
func (l *lines) append(values ...any) error {
	b, err := encodeLines(values)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(b); err != nil {
		return err
	}
	return l.file.Sync()
}

func (l *lines) close() error { return l.file.Close() }

func encodeLines(values []any) ([]byte, error) {
	b := bytes.NewBufferString("\n")
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return nil, fmt.Errorf("encode a line: %w", err)
		}
	}
	return b.Bytes(), nil
}

// replaceFile puts content in the place of name, at once: a crash leaves the old
// file or the new one.
func replaceFile(name string, content []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// notebook is a file of lines in which one process keeps what it knows: read when
// it is opened, then appended to, and written anew when most of it was overtaken.
// Used by one goroutine at a time.
type notebook[T any] struct {
	name    string
	lines   *lines
	written int // lines in the file
}

// openNotebook hands over every line that is there, in order.
func openNotebook[T any](name string, keep func(T)) (*notebook[T], error) {
	n := &notebook[T]{name: name}
	err := readNotebook(name, func(line T) {
		keep(line)
		n.written++
	})
	if err != nil {
		return nil, err
	}
	if n.lines, err = openLines(name); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return n, nil
}

// readNotebook hands over every line of a notebook, also of one that somebody
// else writes. A file that is missing has none.
func readNotebook[T any](name string, keep func(T)) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	r := newLineReader(f)
	for {
		var line T
		switch err := r.next(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		}
		keep(line)
	}
}

// add appends lines and returns when they are on disk.
func (n *notebook[T]) add(all ...T) error {
	if err := n.lines.append(anys(all)...); err != nil {
		return fmt.Errorf("append to %s: %w", n.name, err)
	}
	n.written += len(all)
	return nil
}

// renew writes the file anew with these lines: a crash leaves the old one or the
// new one.
func (n *notebook[T]) renew(all []T) error {
	b, err := encodeLines(anys(all))
	if err == nil {
		err = replaceFile(n.name, b)
	}
	if err == nil {
		var renewed *lines
		if renewed, err = openLines(n.name); err == nil {
			err = n.lines.close()
			n.lines, n.written = renewed, len(all)
		}
	}
	if err != nil {
		return fmt.Errorf("write %s anew: %w", n.name, err)
	}
	return nil
}

func (n *notebook[T]) close() error { return n.lines.close() }

func anys[T any](all []T) []any {
	out := make([]any, len(all))
	for i, v := range all {
		out[i] = v
	}
	return out
}

// lineReader reads what lines wrote, also while it is written.
type lineReader struct {
	r    *bufio.Reader
	rest []byte // the beginning of a line whose end is not there yet
	line int    // number of the last line
	torn int    // lines that were cut off
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next decodes the next whole line into v. It returns io.EOF when there is none
// yet; a later call goes on from there. A line that was cut off is dropped and
// counted. Anything else that is no JSON is damage, and an error.
func (r *lineReader) next(v any) error {
	for {
		b, err := r.r.ReadBytes('\n')
		r.rest = append(r.rest, b...)
		if err != nil {
			return err
		}
		r.line++
		// A power cut can leave zeros where the end of a write would be.
		line := bytes.TrimRight(r.rest, "\x00\n")
		r.rest = nil
		if len(line) == 0 {
			continue
		}
		err = json.Unmarshal(line, v)
		if err == nil {
			return nil
		}
		var whole json.RawMessage
		if errors.Is(json.NewDecoder(bytes.NewReader(line)).Decode(&whole), io.ErrUnexpectedEOF) {
			r.torn++
			continue
		}
		return fmt.Errorf("line %d is damaged: %w", r.line, err)
	}
}
