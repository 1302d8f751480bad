package client

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// pageSize is the largest page that the API gives (contract section 1.4).
const pageSize = 100

// pages walks through a paginated list. It yields at most one error, as the
// last pair.
//
// Pages are counted from the top. A row that is inserted or moved meanwhile can
// appear twice or not at all, unless the order keeps old rows in place.
func pages[T any](ctx context.Context, c *Client, query url.Values, path ...string) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		query := maps.Clone(query) // the walk may be started more than once
		if query == nil {
			query = make(url.Values)
		}
		query.Set("limit", strconv.Itoa(pageSize))
		for n := 1; ; n++ {
			page, err := onePage[T](ctx, c, query, n, path...)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range page.Data {
				if !yield(&page.Data[i], nil) {
					return
				}
			}
			// An empty page ends the walk whatever its pagination claims.
			if len(page.Data) == 0 || !page.Pagination.HasNext {
				return
			}
		}
	}
}

// page is one page of a list as the API answers it.
type page[T any] struct {
	Data       []T `json:"data"`
	Pagination struct {
		Total   int  `json:"total"`
		HasNext bool `json:"hasNext"`
	} `json:"pagination"`
}

// onePage fetches page n of a list. It sets the page in query.
func onePage[T any](ctx context.Context, c *Client, query url.Values, n int, path ...string) (*page[T], error) {
	query.Set("page", strconv.Itoa(n))
	p := new(page[T])
	if err := c.do(ctx, call{method: http.MethodGet, path: path, query: query}, p); err != nil {
		return nil, err
	}
	return p, nil
}

// one makes a call whose answer is {"data": T}.
func one[T any](ctx context.Context, c *Client, a call, opts ...CallOption) (*T, error) {
	var answer struct {
		Data *T `json:"data"`
	}
	if err := c.do(ctx, a, &answer, opts...); err != nil {
		return nil, err
	}
	if answer.Data == nil {
		return nil, fmt.Errorf("%s %s: the answer has no data", a.method, c.url(a).Path)
	}
	return answer.Data, nil
}

// query collects filter values and leaves unset ones out.
type query url.Values

func (q query) text(key, v string) {
	if v != "" {
		url.Values(q).Set(key, v)
	}
}

func (q query) flag(key string, v *bool) {
	if v != nil {
		url.Values(q).Set(key, strconv.FormatBool(*v))
	}
}

// time writes UTC with Z, because offsets are refused (contract section 1.2).
func (q query) time(key string, v time.Time) {
	if !v.IsZero() {
		url.Values(q).Set(key, v.UTC().Format(time.RFC3339Nano))
	}
}
