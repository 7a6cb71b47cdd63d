//go:build linux && cgo && rdma

// What the Go side calls: plain structures without pointers, and one crossing a
// batch. Functions that return int return 0 or a positive errno unless they say
// otherwise; functions that return a pointer return NULL and set errno.

#ifndef TENURE_IBVERBS_SHIM_H
#define TENURE_IBVERBS_SHIM_H

#include <stdint.h>

struct ibv_device;
struct ibv_context;
struct ibv_pd;
struct ibv_mr;
struct ibv_comp_channel;
struct ibv_cq;
struct ibv_qp;

// A work request; Descriptor in Go.
struct tenure_wr {
	uint64_t id;
	uint64_t local_addr;
	uint32_t length;
	uint32_t lkey;
	uint64_t remote_addr;
	uint64_t compare_add;
	uint64_t swap;
	uint32_t rkey;
	uint32_t imm;
	uint8_t op;
	uint8_t flags;
	uint8_t padding[6];
};

// A work completion; Completion in Go.
struct tenure_wc {
	uint64_t id;
	uint32_t length;
	uint32_t imm;
	uint32_t qp;
	uint32_t vendor;
	uint32_t status;
	uint32_t padding;
};

// What of ibv_device_attr and ibv_port_attr matters.
struct tenure_device_attr {
	uint64_t max_mr_size;
	uint32_t max_qp;
	uint32_t max_qp_wr;
	uint32_t max_cqe;
	uint32_t max_mr;
	uint32_t max_qp_rd_atom;
	uint32_t max_qp_init_rd_atom;
	uint32_t atomic_cap;
	uint32_t ports;
	char firmware[64];
};

struct tenure_port_attr {
	uint32_t state;
	uint32_t active_mtu;
	uint32_t max_mtu;
	uint32_t link_layer;
	uint32_t max_message;
	uint32_t gids;
	uint32_t lid;
};

// All that the transitions of a queue pair from INIT to RTS need.
struct tenure_path {
	uint32_t remote_qp;
	uint32_t remote_psn;
	uint32_t local_psn;
	uint16_t remote_lid;
	uint8_t gid[16];
	uint8_t global;
	uint8_t gid_index;
	uint8_t hop_limit;
	uint8_t port;
	uint8_t mtu;
	uint8_t responder_atomics;
	uint8_t initiator_atomics;
	uint8_t min_rnr_timer;
	uint8_t timeout;
	uint8_t retries;
	uint8_t rnr_retries;
};

struct tenure_event {
	int32_t type;
	uint32_t qp;
	uint32_t port;
	uint32_t padding;
	uint64_t cq;
};

// The library. tenure_load returns NULL, or why it cannot be used.
const char *tenure_load(void);
uint64_t tenure_memlock_limit(void);
int tenure_dup(int fd); // -1 and errno

struct ibv_device **tenure_get_device_list(int *n);
void tenure_free_device_list(struct ibv_device **list);
const char *tenure_device_name(struct ibv_device **list, int i);
int tenure_device_transport(struct ibv_device **list, int i);
struct ibv_context *tenure_open_device(struct ibv_device **list, int i);
int tenure_close_device(struct ibv_context *context);
int tenure_query_device(struct ibv_context *context, struct tenure_device_attr *out);
int tenure_query_port(struct ibv_context *context, int port, struct tenure_port_attr *out);
int tenure_query_gid(struct ibv_context *context, int port, int index, uint8_t *gid);
int tenure_async_fd(struct ibv_context *context);
// 0, EAGAIN if there is none, or another errno.
int tenure_get_async_event(struct ibv_context *context, struct tenure_event *out);

struct ibv_pd *tenure_alloc_pd(struct ibv_context *context);
int tenure_dealloc_pd(struct ibv_pd *pd);
struct ibv_mr *tenure_reg_mr(struct ibv_pd *pd, uint64_t addr, uint64_t length);
void tenure_mr_keys(struct ibv_mr *mr, uint32_t *lkey, uint32_t *rkey);
int tenure_dereg_mr(struct ibv_mr *mr);

struct ibv_comp_channel *tenure_create_channel(struct ibv_context *context);
int tenure_channel_fd(struct ibv_comp_channel *channel);
int tenure_destroy_channel(struct ibv_comp_channel *channel);
struct ibv_cq *tenure_create_cq(struct ibv_context *context, int depth, struct ibv_comp_channel *channel);
int tenure_destroy_cq(struct ibv_cq *cq);
// 0, EAGAIN if there is none, or another errno.
int tenure_get_cq_event(struct ibv_comp_channel *channel);
void tenure_ack_cq_events(struct ibv_cq *cq, unsigned int n);
// tenure_poll returns the number of completions or a negative errno. With arm it
// asks for an event first and then looks once; otherwise it looks for up to
// spin_ns nanoseconds, at least once.
int tenure_poll(struct ibv_cq *cq, struct tenure_wc *out, int n, uint32_t spin_ns, int arm);

struct ibv_qp *tenure_create_qp(struct ibv_pd *pd, struct ibv_cq *send_cq, struct ibv_cq *receive_cq,
				uint32_t send_depth, uint32_t receive_depth, uint32_t max_inline);
uint32_t tenure_qp_number(struct ibv_qp *qp);
int tenure_modify_init(struct ibv_qp *qp, int port);
int tenure_modify_rtr(struct ibv_qp *qp, const struct tenure_path *path);
int tenure_modify_rts(struct ibv_qp *qp, const struct tenure_path *path);
int tenure_modify_state(struct ibv_qp *qp, int state);
int tenure_query_state(struct ibv_qp *qp, int *state);
int tenure_destroy_qp(struct ibv_qp *qp);
// The posts return how many were taken in the low and an errno in the high half.
uint64_t tenure_post_send(struct ibv_qp *qp, const struct tenure_wr *w, int n);
uint64_t tenure_post_receives(struct ibv_qp *qp, uint64_t id, int n);

#endif
