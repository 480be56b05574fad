# SPDX-License-Identifier: Apache-2.0
# Tests of compiler flags and of what the libfuse at hand offers.

# CKPTFS_TRY_FLAG(KIND, FLAG, VARIABLE, IF-NOT)
# Appends FLAG to VARIABLE when the compiler (KIND "compiler") or the linker takes it without a warning.
AC_DEFUN([CKPTFS_TRY_FLAG], [
    AC_MSG_CHECKING([whether the $1 takes $2])
    ckptfs_flag_cflags=$CFLAGS
    CFLAGS="$CFLAGS -Werror $2"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [ckptfs_flag=yes], [ckptfs_flag=no])
    CFLAGS=$ckptfs_flag_cflags
    AC_MSG_RESULT([$ckptfs_flag])
    AS_IF([test "$ckptfs_flag" = yes], [$3="$$3 $2"], [$4])
])

# CKPTFS_COMPILER_FLAGS(VARIABLE, FLAGS), CKPTFS_LINKER_FLAGS(VARIABLE, FLAGS): those that are taken.
AC_DEFUN([CKPTFS_COMPILER_FLAGS],
    [m4_foreach_w([ckptfs_one], [$2], [CKPTFS_TRY_FLAG([compiler], m4_quote(ckptfs_one), [$1], [:])])])
AC_DEFUN([CKPTFS_LINKER_FLAGS],
    [m4_foreach_w([ckptfs_one], [$2], [CKPTFS_TRY_FLAG([linker], m4_quote(ckptfs_one), [$1], [:])])])

# The same; a flag that is not taken is an error.
AC_DEFUN([CKPTFS_REQUIRE_COMPILER_FLAGS],
    [m4_foreach_w([ckptfs_one], [$2], [CKPTFS_TRY_FLAG([compiler], m4_quote(ckptfs_one), [$1],
        [AC_MSG_ERROR([the compiler must take ]m4_quote(ckptfs_one))])])])
AC_DEFUN([CKPTFS_REQUIRE_LINKER_FLAGS],
    [m4_foreach_w([ckptfs_one], [$2], [CKPTFS_TRY_FLAG([linker], m4_quote(ckptfs_one), [$1],
        [AC_MSG_ERROR([the linker must take ]m4_quote(ckptfs_one))])])])

# CKPTFS_FUSE_MEMBER(NAME, STRUCT.MEMBER, TEXT): defines HAVE_FUSE_NAME when libfuse has the member.
AC_DEFUN([CKPTFS_FUSE_MEMBER], [
    AC_CHECK_MEMBER([$2],
        [ckptfs_cv_fuse_$1=yes
        AC_DEFINE([HAVE_FUSE_$1], [1], [$3])],
        [ckptfs_cv_fuse_$1=no], [[#include <fuse_lowlevel.h>]])
])

# CKPTFS_FUSE_DECLARATION(NAME, SYMBOL, TEXT): defines HAVE_FUSE_NAME when libfuse declares the symbol or macro.
AC_DEFUN([CKPTFS_FUSE_DECLARATION], [
    AC_CHECK_DECL([$2],
        [ckptfs_cv_fuse_$1=yes
        AC_DEFINE([HAVE_FUSE_$1], [1], [$3])],
        [ckptfs_cv_fuse_$1=no], [[#include <fuse_lowlevel.h>]])
])
