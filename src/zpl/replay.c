/*
 * The intent log that another implementation left behind.
 */
#include "zpl/zpl_int.h"

#include <sys/zil_impl.h>

#include <errno.h>

int zpl_replay(struct zpl_fs *fs, struct pv_error *err)
{
	const zil_header_t *header = dmu_objset_zil(fs->os)->zl_header;

	if (header->zh_flags & ZIL_REPLAY_NEEDED)
		return pv_fail(err, -ENOTSUP, fs->name, "the intent log holds changes of another system");
	return 0;
}
