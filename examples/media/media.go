// Package media is the example of a media service: people who log in rate and
// review movies.
//
// The table users has a salted hash of each user's password; ratings has the sum
// of the ratings of a movie under {movie}/sum and their number under
// {movie}/count; reviews has a JSON array of the reviews of a movie. The workflow
// review, in tenure.yaml, checks the password and then rates and reviews in
// parallel steps, all as one transaction.
//
// Start reading at Handlers and tenure.yaml.
package media

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/tenure-faas/tenure/sdk/go"
)

// Ratings are stars.
const (
	minRating = 1
	maxRating = 5
)

// maxReviewsBytes keeps the reviews of one movie below the platform's limit of a
// value.
const maxReviewsBytes = 900 << 10

// Reasons for which the handlers abort.
var (
	errUser      = errors.New("invalid user")
	errTaken     = errors.New("user exists")
	errPassword  = errors.New("wrong password")
	errMovie     = errors.New("invalid movie")
	errRating    = errors.New("invalid rating")
	errText      = errors.New("invalid text")
	errManyWords = errors.New("too many reviews")
)

// Handlers returns the handlers by name, for compiling them into a server.
func Handlers() map[string]tenure.Handler {
	return map[string]tenure.Handler{
		"register": Register, "login": Login, "rate": Rate, "review": Review, "movie": Movie,
	}
}

// Register stores a new user with a password.
func Register(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	user, err := text(in, "user", errUser)
	if err != nil {
		return nil, err
	}
	password, err := text(in, "password", errPassword)
	if err != nil {
		return nil, err
	}
	_, found, err := ctx.Get("users", user)
	if err != nil {
		return nil, err
	}
	if found {
		return nil, errTaken
	}
	if err := ctx.Put("users", user, hash(strconv.FormatUint(ctx.Rand(), 16), password)); err != nil {
		return nil, err
	}
	return tenure.NewObject().Str("user", user).Bytes(), nil
}

// Login checks the password. An unknown user is answered like a wrong password.
func Login(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	user, err := text(in, "user", errUser)
	if err != nil {
		return nil, err
	}
	stored, found, err := ctx.Get("users", user)
	if err != nil {
		return nil, err
	}
	salt, _, _ := bytes.Cut(stored, []byte{'$'})
	given := hash(string(salt), in.Get("password").String())
	if !found || subtle.ConstantTimeCompare(stored, given) != 1 {
		return nil, errPassword
	}
	return tenure.NewObject().Str("user", user).Bytes(), nil
}

// hash returns salt$hash. One round of SHA-256 keeps the example short; a real
// service wants a function that is made for passwords.
func hash(salt, password string) []byte {
	sum := sha256.Sum256([]byte(salt + "$" + password))
	return hex.AppendEncode([]byte(salt+"$"), sum[:])
}

// Rate adds the rating to those of the movie. It reads nothing, so that ratings
// of one movie do not wait for each other.
func Rate(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	movie, err := text(in, "movie", errMovie)
	if err != nil {
		return nil, err
	}
	rating, ok := in.Get("rating").Int()
	if !ok || rating < minRating || rating > maxRating {
		return nil, errRating
	}
	if err := ctx.Add("ratings", movie+"/sum", rating); err != nil {
		return nil, err
	}
	if err := ctx.Add("ratings", movie+"/count", 1); err != nil {
		return nil, err
	}
	return tenure.NewObject().Int("rating", rating).Bytes(), nil
}

// Review appends the review to those of the movie and answers its id.
func Review(ctx *tenure.Context) ([]byte, error) {
	in := ctx.JSON()
	movie, err := text(in, "movie", errMovie)
	if err != nil {
		return nil, err
	}
	words, err := text(in, "text", errText)
	if err != nil {
		return nil, err
	}
	reviews, _, err := ctx.Get("reviews", movie)
	if err != nil {
		return nil, err
	}
	if len(reviews)+len(words) > maxReviewsBytes {
		return nil, errManyWords
	}
	id := ctx.InvocationID()
	review := tenure.NewObject().Str("id", id).Str("user", in.Get("user").String()).
		Raw("rating", in.Get("rating").Raw()).Str("text", words).Bytes()
	if err := ctx.Put("reviews", movie, appendElement(reviews, review)); err != nil {
		return nil, err
	}
	return tenure.NewObject().Str("id", id).Bytes(), nil
}

// appendElement returns a new JSON array with one element more; an absent array
// counts as empty.
func appendElement(array, element []byte) []byte {
	array = bytes.TrimSpace(array)
	out := make([]byte, 0, len(array)+len(element)+2)
	if tenure.ParseJSON(array).Get("[0]").Exists() {
		out = append(append(out, array[:len(array)-1]...), ',')
	} else {
		out = append(out, '[')
	}
	return append(append(out, element...), ']')
}

// Movie answers the ratings and reviews of a movie, as of one moment.
func Movie(ctx *tenure.Context) ([]byte, error) {
	movie, err := text(ctx.JSON(), "movie", errMovie)
	if err != nil {
		return nil, err
	}
	sum, err := ctx.GetInt("ratings", movie+"/sum")
	if err != nil {
		return nil, err
	}
	count, err := ctx.GetInt("ratings", movie+"/count")
	if err != nil {
		return nil, err
	}
	reviews, found, err := ctx.Get("reviews", movie)
	if err != nil {
		return nil, err
	}
	if !found {
		reviews = []byte("[]")
	}
	return tenure.NewObject().Int("sum", sum).Int("count", count).Raw("reviews", reviews).Bytes(), nil
}

func text(in tenure.JSON, field string, otherwise error) (string, error) {
	value := in.Get(field)
	if len(value.Raw()) <= len(`""`) || !value.IsString() {
		return "", otherwise
	}
	return value.String(), nil
}
