// Package travel is the example of a travel agency: a reservation takes a hotel
// room and a seat on a flight, or neither.
//
// The tables hotels and flights have the free rooms and seats of each hotel and
// flight, decimal integers; orders has one JSON object per reservation, under the
// id of the invocation that made it. The workflow reserve, in tenure.yaml, takes
// room and seat in parallel steps and then writes the order.
//
// Start reading at Handlers and tenure.yaml.
package travel

import (
	"errors"

	"github.com/tenure-faas/tenure/sdk/go"
)

// Reasons for which the handlers abort.
var (
	errSoldOut = errors.New("sold out")
	errInput   = errors.New("hotel and flight must be names")
)

// Handlers returns the handlers by name, for compiling them into a server.
func Handlers() map[string]tenure.Handler {
	return map[string]tenure.Handler{"room": Room, "seat": Seat, "order": Order, "search": Search}
}

// Room takes one room of {hotel} and answers how many are left.
func Room(ctx *tenure.Context) ([]byte, error) {
	return take(ctx, "hotels", "hotel", "rooms_left")
}

// Seat takes one seat of {flight} and answers how many are left.
func Seat(ctx *tenure.Context) ([]byte, error) {
	return take(ctx, "flights", "flight", "seats_left")
}

func take(ctx *tenure.Context, table, field, left string) ([]byte, error) {
	name, err := named(ctx.JSON(), field)
	if err != nil {
		return nil, err
	}
	free, err := ctx.GetInt(table, name)
	if err != nil {
		return nil, err
	}
	if free <= 0 {
		return nil, errSoldOut
	}
	if err := ctx.PutInt(table, name, free-1); err != nil {
		return nil, err
	}
	return tenure.NewObject().Int(left, free-1).Bytes(), nil
}

// Order writes the order and answers it. Its key, the id of the invocation, is
// not known before and so not declared; nobody else wants it.
func Order(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	hotel, err := named(in, "hotel")
	if err != nil {
		return nil, err
	}
	flight, err := named(in, "flight")
	if err != nil {
		return nil, err
	}
	id := ctx.InvocationID()
	order := tenure.NewObject().Str("order", id).Str("hotel", hotel).Str("flight", flight)
	if user := in.Get("user"); user.Exists() {
		order.Raw("user", user.Raw())
	}
	if err := ctx.Put("orders", id, order.Bytes()); err != nil {
		return nil, err
	}
	room, _ := ctx.Result("room")
	seat, _ := ctx.Result("seat")
	rooms, _ := tenure.ParseJSON(room).Get("rooms_left").Int()
	seats, _ := tenure.ParseJSON(seat).Get("seats_left").Int()
	return order.Int("rooms_left", rooms).Int("seats_left", seats).Bytes(), nil
}

// Search answers how many rooms and seats are free, as of one moment.
func Search(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	hotel, err := named(in, "hotel")
	if err != nil {
		return nil, err
	}
	flight, err := named(in, "flight")
	if err != nil {
		return nil, err
	}
	rooms, err := ctx.GetInt("hotels", hotel)
	if err != nil {
		return nil, err
	}
	seats, err := ctx.GetInt("flights", flight)
	if err != nil {
		return nil, err
	}
	return tenure.NewObject().Int("rooms", rooms).Int("seats", seats).Bytes(), nil
}

func named(in tenure.JSON, field string) (string, error) {
	name := in.Get(field)
	if len(name.Raw()) <= len(`""`) || !name.IsString() {
		return "", errInput
	}
	return name.String(), nil
}
