/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that are run for a user: what they get, how they end, and that nothing of them is left. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "fs/run_as.h"

enum { OTHER_USER = 54321 };

static const char *const environment[] = {"PATH=/usr/bin:/bin", "FACT=a 'b' $c", NULL};
static struct run_as_user user;
static char said[4096];
static int status;

static void note_line(void *context, const char *line)
{
    (void)context;
    size_t length = strlen(said);
    snprintf(said + length, sizeof said - length, "%s|", line);
}

static struct run_as order_of(const char *command)
{
    user = (struct run_as_user){.uid = geteuid(), .gid = getegid()};
    return (struct run_as){.user = &user,
                           .command = command,
                           .environment = environment,
                           .input = "in",
                           .input_length = 2,
                           .seconds = 60,
                           .stop_fd = -1,
                           .line = note_line};
}

static errint run(const struct run_as *order)
{
    said[0] = '\0';
    status = -1;
    return run_as(order, &status);
}

static errint run_command(const char *command)
{
    const struct run_as order = order_of(command);
    return run(&order);
}

static void test_talk(void)
{
    CHECK_EQUAL(0, run_command("cat; echo; echo \"$FACT\"; echo err >&2; pwd; printf end; exit 3"));
    CHECK_TEXT("in|a 'b' $c|err|/|end|", said);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    CHECK_EQUAL(0, run_command("kill -TERM $$"));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK_EQUAL(0, run_command("/nonexistent/program 2>/dev/null"));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 127);
}

/* Nothing of this process: descriptors, blocked signals, privileges, variables. */
static void test_clean(void)
{
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    int inherited = dup(STDOUT_FILENO);
    CHECK_EQUAL(0, run_command("ls /proc/self/fd | wc -l; env | grep -vc -e ^PATH -e ^FACT -e ^PWD -e ^OLDPWD"
                               " -e ^SHLVL -e ^_="));
    CHECK_TEXT("4|0|", said); /* three, and the one that ls reads */
    CHECK_EQUAL(0,
                run_command("grep -E '^(SigBlk|CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'"));
    CHECK(strstr(said, "SigBlk:0000000000000000|") != NULL);
    CHECK(strstr(said, "CapEff:0000000000000000|") != NULL);
    CHECK(geteuid() != 0 || strstr(said, "CapBnd:0000000000000000|") != NULL);
    CHECK(strstr(said, "NoNewPrivs:1|") != NULL);
    close(inherited);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void test_long_lines(void)
{
    CHECK_EQUAL(0, run_command("head -c 2500 /dev/zero | tr '\\0' x; echo; echo last"));
    CHECK_EQUAL(2500 + 3 + 5, strlen(said)); /* in three pieces */
    CHECK(strstr(said, "|last|") != NULL);
}

/* On a machine that is slow a command may have less than a second before its time is over: then it gets more.
 */
static errint run_out_of_time(struct run_as *order)
{
    errint error = 0;
    for (order->seconds = 1; order->seconds <= 16; order->seconds *= 4) {
        error = run(order);
        if (said[0])
            break;
    }
    return error;
}

static void test_time(void)
{
    struct run_as order = order_of("echo begun; sleep 1000 & sleep 1000");
    int64_t begun = clock_monotonic();
    CHECK_EQUAL(-ETIME, run_out_of_time(&order));
    CHECK(clock_monotonic() - begun < 100 * CLOCK_NS_PER_SECOND);
    CHECK_TEXT("begun|", said);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_stop(void)
{
    struct run_as order = order_of("sleep 1000");
    order.stop_fd = eventfd(1, EFD_CLOEXEC);
    CHECK_EQUAL(-ECANCELED, run(&order));
    close(order.stop_fd);
}

static int stopper;

static void stop_at_line(void *context, const char *line)
{
    note_line(context, line);
    eventfd_write(stopper, 1);
}

static bool always(void *context)
{
    (void)context;
    return true;
}

/* It may note something before it goes; one that does not go is killed. */
static void test_stop_kindly(void)
{
    struct run_as order =
        order_of("trap 'echo noted; exit 3' TERM; echo begun; while :; do sleep 0.01; done");
    stopper = order.stop_fd = eventfd(0, EFD_CLOEXEC);
    order.seconds = 0;
    order.patience = 60 * 1000;
    order.line = stop_at_line;
    CHECK_EQUAL(-ECANCELED, run(&order));
    CHECK(strstr(said, "noted|") != NULL);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    eventfd_t count;
    CHECK_EQUAL(0, eventfd_read(stopper, &count));
    order.command = "trap '' TERM; echo begun; while :; do sleep 0.01; done";
    order.patience = 1;
    CHECK_EQUAL(-ECANCELED, run(&order));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(stopper);
}

static void test_watch(void)
{
    struct run_as order = order_of("sleep 1000");
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[1]);
    order.watch = always;
    order.watch_fd = ends[0];
    CHECK_EQUAL(-ECANCELED, run(&order));
    close(ends[0]);
}

/* The program itself, with its arguments; it is this test. */
static void test_itself(void)
{
    const char *const arguments[] = {"test", "itself", NULL};
    struct run_as order = order_of(NULL);
    order.arguments = arguments;
    CHECK_EQUAL(0, run(&order));
    CHECK_TEXT("itself, nice 10, in /|", said);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

/* What holds a lock on the file has ended, or ends within some seconds: whoever reaps it may take a moment.
 */
static bool is_unlocked(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool free = false;
    for (int i = 0; i < 1000 && fd >= 0 && !free; i++) {
        free = flock(fd, LOCK_EX | LOCK_NB) == 0;
        if (!free)
            nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    }
    close(fd);
    return free;
}

/* What holds the output open keeps nobody waiting, and does not outlive what was run, wherever it went. */
static void check_left_behind(const char *how, const char *end, unsigned seconds, errint expected)
{
    char path[] = "/tmp/test_run_as.XXXXXX", command[512];
    int64_t begun = clock_monotonic();
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    snprintf(command, sizeof command, "exec 9<%s; flock 9; %s echo begun; %s", path, how, end);
    struct run_as order = order_of(command);
    order.seconds = seconds;
    CHECK_EQUAL(expected, expected == -ETIME ? run_out_of_time(&order) : run(&order));
    CHECK_TEXT("begun|", said);
    CHECK(is_unlocked(path));
    CHECK(clock_monotonic() - begun < 100 * CLOCK_NS_PER_SECOND);
    close(fd);
    unlink(path);
}

static void test_left_behind(void)
{
    check_left_behind("sleep 1000 &", "", 60, 0);
    check_left_behind("setsid sleep 1000 &", "", 60, 0);
    check_left_behind("setsid sh -c 'setsid sleep 1000 & setsid sleep 1000 &' &", "sleep 0.2", 60, 0);
    check_left_behind("setsid sh -c 'setsid sleep 1000 & exit' ;", "sleep 1000", 1, -ETIME);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_other_user(void)
{
    struct run_as order =
        order_of("id -u; id -g; id -G; cat /proc/self/status | grep -c '^CapPrm.*[1-9a-f]'");
    CHECK(!run_as_may((uid_t)-1));
    CHECK(run_as_may(geteuid()));
    CHECK_EQUAL(0, run_as_find_user(OTHER_USER, OTHER_USER + 1, &user));
    if (geteuid() != 0) {
        CHECK(!run_as_may(OTHER_USER));
        CHECK_EQUAL(-EPERM, run(&order));
        return;
    }
    CHECK_EQUAL(0, run(&order));
    CHECK_TEXT("54321|54322|54322|0|", said);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        char directory[16] = "?";
        printf("%s, nice %d, in %s\n", argv[1], getpriority(PRIO_PROCESS, 0),
               getcwd(directory, sizeof directory));
        return 5;
    }
    check_run("a command reads, writes and ends", test_talk);
    check_run("it has nothing of this process", test_clean);
    check_run("long lines come in pieces", test_long_lines);
    check_run("it has its time", test_time);
    check_run("it is stopped", test_stop);
    check_run("it is asked to end first", test_stop_kindly);
    check_run("it is stopped by what is watched", test_watch);
    check_run("the program itself is run", test_itself);
    check_run("what it leaves goes with it", test_left_behind);
    check_run("it runs as another user, or not at all", test_other_user);
    return check_done();
}
