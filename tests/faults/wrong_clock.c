/* A system clock that is off by as many seconds as a file says, for processes that preload this library.

   What counts the seconds that pass (CLOCK_MONOTONIC, sleeps, timeouts) is left alone, as it is when somebody sets
   the clock. libfaketime 0.9.10 does not do: with its monotonic clock left alone, time.sleep() of Python 3.11 fails. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long seconds_off(void)
{
    char text[32] = "0";
    int file = open(getenv("WRONG_CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) < 0)
            text[0] = 0;
        close(file);
    }
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += seconds_off();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int result = syscall(SYS_gettimeofday, now, zone);
    if (result == 0 && now != NULL)
        now->tv_sec += seconds_off();
    return result;
}

time_t time(time_t *place)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place != NULL)
        *place = now.tv_sec;
    return now.tv_sec;
}
