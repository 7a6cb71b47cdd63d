// Package rpcpb is the wire form of the control plane, generated from the .proto
// files beside it. "go generate" needs protoc (Debian: protobuf-compiler); the
// generators themselves are pinned as tools in go.mod.
package rpcpb

//go:generate sh -c "protoc -I . --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --go_out=. --go_opt=paths=source_relative --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go-grpc_out=. --go-grpc_opt=paths=source_relative *.proto"
