package api

import (
	"context"
	"fmt"

	"github.com/ticketwire/ticketwire/internal/store"
)

// change runs one store call and turns its result into the answer. Every write
// of the API goes through it, because under an idempotency key the answer has to
// be known inside the transaction.
func change[T any](c *call, op func(ctx context.Context) (T, error), view func(T) answer) (answer, error) {
	ctx := c.ctx
	if c.idem != nil {
		c.idem.Render = func(result any) (int, []byte, error) {
			v, is := result.(T)
			if !is {
				return 0, nil, fmt.Errorf("the store returned a %T", result)
			}
			a := view(v)
			body, err := a.encode()
			return a.status, body, err
		}
		ctx = store.WithIdempotency(ctx, c.idem)
	}
	v, err := op(ctx)
	if err != nil {
		return answer{}, err
	}
	return view(v), nil
}
