//go:build linux && cgo && rdma

// The data path: posts and polls. Everything here is inline in the verbs and
// goes straight to the driver of the device.

#include "shim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <time.h>

// CHUNK bounds what is built on the stack: one doorbell each, about 10 KiB.
#define CHUNK 64

_Static_assert(sizeof(struct tenure_wr) == 64, "a work request is one cache line");
_Static_assert(sizeof(struct tenure_wc) == 32, "two completions are one cache line");

// The numbers of Op and Flag in Go.
static const enum ibv_wr_opcode opcodes[] = {
	[1] = IBV_WR_RDMA_READ,		   [2] = IBV_WR_RDMA_WRITE,	     [3] = IBV_WR_RDMA_WRITE_WITH_IMM,
	[4] = IBV_WR_ATOMIC_CMP_AND_SWP, [5] = IBV_WR_ATOMIC_FETCH_AND_ADD,
};
enum { FLAG_SIGNALED = 1, FLAG_FENCE = 2, FLAG_INLINE = 4 };

static inline int build(struct ibv_send_wr *wr, struct ibv_sge *sge, const struct tenure_wr *w)
{
	if (w->op < 1 || w->op >= sizeof opcodes / sizeof opcodes[0])
		return EINVAL;
	*sge = (struct ibv_sge){ .addr = w->local_addr, .length = w->length, .lkey = w->lkey };
	wr->wr_id = w->id;
	wr->next = NULL;
	wr->sg_list = sge;
	wr->num_sge = w->length > 0; // an entry of no bytes would mean 2^31
	wr->opcode = opcodes[w->op];
	wr->send_flags = (w->flags & FLAG_SIGNALED ? IBV_SEND_SIGNALED : 0) | (w->flags & FLAG_FENCE ? IBV_SEND_FENCE : 0) |
			 (w->flags & FLAG_INLINE ? IBV_SEND_INLINE : 0);
	if (w->op >= 4) {
		wr->wr.atomic.remote_addr = w->remote_addr;
		wr->wr.atomic.compare_add = w->compare_add;
		wr->wr.atomic.swap = w->swap;
		wr->wr.atomic.rkey = w->rkey;
	} else {
		wr->wr.rdma.remote_addr = w->remote_addr;
		wr->wr.rdma.rkey = w->rkey;
		wr->imm_data = htonl(w->imm);
	}
	return 0;
}

static inline uint64_t result(uint64_t taken, int err)
{
	return taken | (uint64_t)(uint32_t)(err < 0 ? -err : err) << 32;
}

uint64_t tenure_post_send(struct ibv_qp *qp, const struct tenure_wr *w, int n)
{
	struct ibv_send_wr wr[CHUNK], *bad;
	struct ibv_sge sge[CHUNK];
	int taken = 0;

	while (taken < n) {
		int k = n - taken < CHUNK ? n - taken : CHUNK, err;

		for (int i = 0; i < k; i++) {
			if ((err = build(&wr[i], &sge[i], &w[taken + i])))
				return result(taken, err); // none of this chunk
			if (i > 0)
				wr[i - 1].next = &wr[i];
		}
		bad = NULL;
		if ((err = ibv_post_send(qp, wr, &bad))) {
			// Without a bad request all are in the queue, and the doorbell failed.
			taken += bad ? (int)(bad - wr) : k;
			return result(taken, err);
		}
		taken += k;
	}
	return result(taken, 0);
}

uint64_t tenure_post_receives(struct ibv_qp *qp, uint64_t id, int n)
{
	struct ibv_recv_wr wr[CHUNK], *bad;
	int taken = 0;

	for (int i = 0; i < CHUNK && i < n; i++)
		wr[i] = (struct ibv_recv_wr){ .wr_id = id };
	while (taken < n) {
		int k = n - taken < CHUNK ? n - taken : CHUNK, err;

		for (int i = 0; i < k; i++)
			wr[i].next = i + 1 < k ? &wr[i + 1] : NULL;
		bad = NULL;
		if ((err = ibv_post_recv(qp, wr, &bad)))
			return result(taken + (bad ? bad - wr : 0), err);
		taken += k;
	}
	return result(taken, 0);
}

static inline uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

int tenure_poll(struct ibv_cq *cq, struct tenure_wc *out, int n, uint32_t spin_ns, int arm)
{
	struct ibv_wc wc[CHUNK];
	uint64_t end = 0;
	int got, err;

	if (n > CHUNK)
		n = CHUNK;
	if (arm && (err = ibv_req_notify_cq(cq, 0)))
		return err < 0 ? err : -err;
	for (int look = 1; (got = ibv_poll_cq(cq, n, wc)) == 0 && spin_ns > 0; look++) {
		if (look % 16) // the clock costs more than a look
			continue;
		if (end == 0)
			end = now() + spin_ns;
		else if (now() >= end)
			break;
	}
	for (int i = 0; i < got; i++)
		out[i] = (struct tenure_wc){
			.id = wc[i].wr_id,
			.length = wc[i].byte_len,
			.imm = wc[i].wc_flags & IBV_WC_WITH_IMM ? ntohl(wc[i].imm_data) : 0,
			.qp = wc[i].qp_num,
			.vendor = wc[i].vendor_err,
			.status = wc[i].status,
		};
	return got;
}
