//go:build linux && cgo && rdma

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

// The functions of libibverbs that are not inline. They are looked up at run
// time, so that one program runs on machines without the library, too. What is
// inline goes through the table of the device's driver and needs no symbol.
#define FUNCTIONS(F)                                                                                               \
	F(get_device_list) F(free_device_list) F(get_device_name) F(open_device) F(close_device)                   \
	F(query_device) F(query_port) F(query_gid) F(get_async_event) F(ack_async_event) F(alloc_pd)               \
	F(dealloc_pd) F(reg_mr) F(dereg_mr) F(create_comp_channel) F(destroy_comp_channel) F(create_cq)            \
	F(destroy_cq) F(get_cq_event) F(ack_cq_events) F(create_qp) F(modify_qp) F(query_qp) F(destroy_qp)         \
	F(fork_init)

#define MEMBER(name) __typeof__(&ibv_##name) name;
static struct {
	FUNCTIONS(MEMBER)
	char error[256]; // empty if the library is there
} lib;

static void load(void)
{
	void *so = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!so) {
		snprintf(lib.error, sizeof lib.error, "%s", dlerror());
		return;
	}
#define LOOKUP(name)                                                                                               \
	if (!(lib.name = (__typeof__(&ibv_##name))dlsym(so, "ibv_" #name))) {                                      \
		snprintf(lib.error, sizeof lib.error, "libibverbs.so.1 has no function ibv_" #name);               \
		return;                                                                                            \
	}
	FUNCTIONS(LOOKUP)
	// Before anything is registered, so that a fork does not move pinned pages.
	// Its failure matters to forks only, and Go starts processes without copying.
	lib.fork_init();
}

const char *tenure_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return lib.error[0] ? lib.error : NULL;
}

uint64_t tenure_memlock_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

int tenure_dup(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

// code makes 0 or a positive errno of the three ways in which verbs report.
static int code(int result)
{
	return result > 0 ? result : result < 0 ? (errno ? errno : EIO) : 0;
}

static int nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : 0;
}

struct ibv_device **tenure_get_device_list(int *n)
{
	return lib.get_device_list(n);
}

void tenure_free_device_list(struct ibv_device **list)
{
	lib.free_device_list(list);
}

const char *tenure_device_name(struct ibv_device **list, int i)
{
	return lib.get_device_name(list[i]);
}

int tenure_device_transport(struct ibv_device **list, int i)
{
	return list[i]->transport_type;
}

struct ibv_context *tenure_open_device(struct ibv_device **list, int i)
{
	struct ibv_context *context;

	errno = 0; // not every failure sets it
	context = lib.open_device(list[i]);
	if (context && nonblocking(context->async_fd)) {
		int cause = errno;

		lib.close_device(context);
		errno = cause;
		return NULL;
	}
	return context;
}

int tenure_close_device(struct ibv_context *context)
{
	return code(lib.close_device(context));
}

int tenure_query_device(struct ibv_context *context, struct tenure_device_attr *out)
{
	struct ibv_device_attr a;
	int r = code(lib.query_device(context, &a));

	if (r)
		return r;
	*out = (struct tenure_device_attr){
		.max_mr_size = a.max_mr_size,
		.max_qp = a.max_qp,
		.max_qp_wr = a.max_qp_wr,
		.max_cqe = a.max_cqe,
		.max_mr = a.max_mr,
		.max_qp_rd_atom = a.max_qp_rd_atom,
		.max_qp_init_rd_atom = a.max_qp_init_rd_atom,
		.atomic_cap = a.atomic_cap,
		.ports = a.phys_port_cnt,
	};
	memcpy(out->firmware, a.fw_ver, sizeof out->firmware);
	return 0;
}

int tenure_query_port(struct ibv_context *context, int port, struct tenure_port_attr *out)
{
	struct verbs_context *driver = verbs_get_ctx_op(context, query_port);
	struct ibv_port_attr a;
	int r;

	memset(&a, 0, sizeof a); // the old function does not know the later fields
	if (driver)
		r = code(driver->query_port(context, port, &a, sizeof a));
	else
		r = code(lib.query_port(context, port, (struct _compat_ibv_port_attr *)&a));
	if (r)
		return r;
	*out = (struct tenure_port_attr){
		.state = a.state,
		.active_mtu = a.active_mtu,
		.max_mtu = a.max_mtu,
		.link_layer = a.link_layer,
		.max_message = a.max_msg_sz,
		.gids = a.gid_tbl_len,
		.lid = a.lid,
	};
	return 0;
}

int tenure_query_gid(struct ibv_context *context, int port, int index, uint8_t *gid)
{
	union ibv_gid g;
	int r = code(lib.query_gid(context, port, index, &g));

	if (!r)
		memcpy(gid, g.raw, 16);
	return r;
}

int tenure_async_fd(struct ibv_context *context)
{
	return context->async_fd;
}

int tenure_get_async_event(struct ibv_context *context, struct tenure_event *out)
{
	struct ibv_async_event e;
	int r = code(lib.get_async_event(context, &e));

	if (r)
		return r;
	memset(out, 0, sizeof *out);
	out->type = e.event_type;
	switch (e.event_type) {
	case IBV_EVENT_CQ_ERR:
		out->cq = (uint64_t)(uintptr_t)e.element.cq;
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
	case IBV_EVENT_COMM_EST:
	case IBV_EVENT_SQ_DRAINED:
	case IBV_EVENT_PATH_MIG:
	case IBV_EVENT_PATH_MIG_ERR:
	case IBV_EVENT_QP_LAST_WQE_REACHED:
		out->qp = e.element.qp->qp_num;
		break;
	case IBV_EVENT_PORT_ACTIVE:
	case IBV_EVENT_PORT_ERR:
	case IBV_EVENT_LID_CHANGE:
	case IBV_EVENT_PKEY_CHANGE:
	case IBV_EVENT_SM_CHANGE:
	case IBV_EVENT_CLIENT_REREGISTER:
	case IBV_EVENT_GID_CHANGE:
		out->port = e.element.port_num;
		break;
	default:
		break;
	}
	// At once: to destroy what the event is about waits for this.
	lib.ack_async_event(&e);
	return 0;
}

struct ibv_pd *tenure_alloc_pd(struct ibv_context *context)
{
	return lib.alloc_pd(context);
}

int tenure_dealloc_pd(struct ibv_pd *pd)
{
	return code(lib.dealloc_pd(pd));
}

struct ibv_mr *tenure_reg_mr(struct ibv_pd *pd, uint64_t addr, uint64_t length)
{
	// No relaxed ordering and no paging on demand: the contract needs the one, and
	// rxe corrupts data with the other. In parentheses, or the macro of that name
	// would call a symbol.
	return (lib.reg_mr)(pd, (void *)(uintptr_t)addr, length,
			    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
				    IBV_ACCESS_REMOTE_ATOMIC);
}

void tenure_mr_keys(struct ibv_mr *mr, uint32_t *lkey, uint32_t *rkey)
{
	*lkey = mr->lkey;
	*rkey = mr->rkey;
}

int tenure_dereg_mr(struct ibv_mr *mr)
{
	return code(lib.dereg_mr(mr));
}

struct ibv_comp_channel *tenure_create_channel(struct ibv_context *context)
{
	struct ibv_comp_channel *channel = lib.create_comp_channel(context);

	if (channel && nonblocking(channel->fd)) {
		int cause = errno;

		lib.destroy_comp_channel(channel);
		errno = cause;
		return NULL;
	}
	return channel;
}

int tenure_channel_fd(struct ibv_comp_channel *channel)
{
	return channel->fd;
}

int tenure_destroy_channel(struct ibv_comp_channel *channel)
{
	return code(lib.destroy_comp_channel(channel));
}

struct ibv_cq *tenure_create_cq(struct ibv_context *context, int depth, struct ibv_comp_channel *channel)
{
	return lib.create_cq(context, depth, NULL, channel, 0);
}

int tenure_destroy_cq(struct ibv_cq *cq)
{
	return code(lib.destroy_cq(cq));
}

int tenure_get_cq_event(struct ibv_comp_channel *channel)
{
	struct ibv_cq *cq;
	void *context;

	return code(lib.get_cq_event(channel, &cq, &context));
}

void tenure_ack_cq_events(struct ibv_cq *cq, unsigned int n)
{
	lib.ack_cq_events(cq, n);
}

struct ibv_qp *tenure_create_qp(struct ibv_pd *pd, struct ibv_cq *send_cq, struct ibv_cq *receive_cq,
				uint32_t send_depth, uint32_t receive_depth, uint32_t max_inline)
{
	struct ibv_qp_init_attr init = {
		.send_cq = send_cq,
		.recv_cq = receive_cq,
		.cap = { .max_send_wr = send_depth,
			 .max_recv_wr = receive_depth,
			 .max_send_sge = 1,
			 .max_recv_sge = 1, // none is used, but some drivers take 0 for a mistake
			 .max_inline_data = max_inline },
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 0,
	};

	return lib.create_qp(pd, &init);
}

uint32_t tenure_qp_number(struct ibv_qp *qp)
{
	return qp->qp_num;
}

int tenure_modify_init(struct ibv_qp *qp, int port)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT,
		.pkey_index = 0,
		.port_num = port,
		.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
	};

	return code(lib.modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
}

int tenure_modify_rtr(struct ibv_qp *qp, const struct tenure_path *path)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = path->mtu,
		.dest_qp_num = path->remote_qp,
		.rq_psn = path->remote_psn,
		.max_dest_rd_atomic = path->responder_atomics,
		.min_rnr_timer = path->min_rnr_timer,
		.ah_attr = { .dlid = path->remote_lid, .is_global = path->global, .port_num = path->port },
	};

	memcpy(a.ah_attr.grh.dgid.raw, path->gid, 16);
	a.ah_attr.grh.sgid_index = path->gid_index;
	a.ah_attr.grh.hop_limit = path->hop_limit;
	return code(lib.modify_qp(qp, &a,
				  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
}

int tenure_modify_rts(struct ibv_qp *qp, const struct tenure_path *path)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = path->local_psn,
		.max_rd_atomic = path->initiator_atomics,
		.timeout = path->timeout,
		.retry_cnt = path->retries,
		.rnr_retry = path->rnr_retries,
	};

	return code(lib.modify_qp(qp, &a,
				  IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
					  IBV_QP_MAX_QP_RD_ATOMIC));
}

int tenure_modify_state(struct ibv_qp *qp, int state)
{
	struct ibv_qp_attr a = { .qp_state = state };

	return code(lib.modify_qp(qp, &a, IBV_QP_STATE));
}

int tenure_query_state(struct ibv_qp *qp, int *state)
{
	struct ibv_qp_attr a;
	struct ibv_qp_init_attr init;
	int r = code(lib.query_qp(qp, &a, IBV_QP_STATE, &init));

	if (!r)
		*state = a.qp_state;
	return r;
}

int tenure_destroy_qp(struct ibv_qp *qp)
{
	return code(lib.destroy_qp(qp));
}

// Numbers that Go repeats, because they are needed where no C compiler is.
_Static_assert(IBV_WC_SUCCESS == 0 && IBV_WC_WR_FLUSH_ERR == 5 && IBV_WC_REM_INV_REQ_ERR == 9 &&
		       IBV_WC_RETRY_EXC_ERR == 12 && IBV_WC_GENERAL_ERR == 21,
	       "completion statuses");
_Static_assert(IBV_QPS_RESET == 0 && IBV_QPS_RTS == 3 && IBV_QPS_ERR == 6, "states of queue pairs");
_Static_assert(IBV_MTU_256 == 1 && IBV_MTU_4096 == 5, "MTUs");
_Static_assert(IBV_PORT_ACTIVE == 4 && IBV_LINK_LAYER_INFINIBAND == 1 && IBV_LINK_LAYER_ETHERNET == 2, "ports");
_Static_assert(IBV_ATOMIC_NONE == 0 && IBV_ATOMIC_HCA == 1 && IBV_ATOMIC_GLOB == 2, "atomics");
_Static_assert(IBV_EVENT_CQ_ERR == 0 && IBV_EVENT_QP_FATAL == 1 && IBV_EVENT_QP_ACCESS_ERR == 3 &&
		       IBV_EVENT_DEVICE_FATAL == 8 && IBV_EVENT_PORT_ACTIVE == 9 && IBV_EVENT_PORT_ERR == 10 &&
		       IBV_EVENT_GID_CHANGE == 18,
	       "asynchronous events");
