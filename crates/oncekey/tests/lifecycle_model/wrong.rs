//! The deliberately wrong rules: each breaks one cell of the tables, and names the promise that
//! must notice it.

use super::promises::Promise::{self, *};
use super::setups::{
    AT_MOST_ONCE, CONFUSED, LATE_COPIES, LONG_RENEWALS, OPERATOR, PROGRESS, REQUESTS, SWEPT,
    TAKE_OVER,
};
use super::world::Setup;

macro_rules! wrong {
    ($($verb:ident: { $($name:ident breaks $promise:ident in $setup:ident;)* })*) => {
        /// The wrong rules, by what they do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Wrong { $($($name,)*)* }

        $(pub(crate) const $verb: &[(Wrong, Promise, Setup)] = &[
            $((Wrong::$name, $promise, $setup),)*
        ];)*
    };
}

wrong! {
    CLAIM: {
        ClaimTakesLive breaks OneOwner in TAKE_OVER;
        ClaimAgainIsBusy breaks RepeatedClaim in TAKE_OVER;
        ClaimAgainMintsToken breaks RepeatedClaim in TAKE_OVER;
        ClaimAgainWritesNothing breaks GrantIsKept in TAKE_OVER;
        ClaimAgainShortens breaks DeadlineGrows in LONG_RENEWALS;
        LeaseLeftIsTooMuch breaks OneBeliever in TAKE_OVER;
        ReleasedIsNotSpent breaks EndedIsSpent in TAKE_OVER;
        GaveUpIsNotSpent breaks EndedIsSpent in TAKE_OVER;
        RetiredIsNotSpent breaks EndedIsSpent in TAKE_OVER;
        TakeoverKeepsToken breaks TokensGrow in TAKE_OVER;
        TakeoverTakesTokenFromClock breaks TokensGrow in TAKE_OVER;
        ReleasedTakesTokenFromClock breaks TokensGrow in TAKE_OVER;
        TakeoverStartsCounting breaks TakeoverIsTold in TAKE_OVER;
        TakeoverIsNotTold breaks TakeoverIsTold in TAKE_OVER;
        TakeoverLosesProgress breaks TakeoverIsTold in PROGRESS;
        TakeoverIsForgottenEarly breaks RememberedLongEnough in TAKE_OVER;
        TakeoverIgnoresRefuse breaks AtMostOnce in AT_MOST_ONCE;
        GaveUpIsFree breaks AtMostOnce in AT_MOST_ONCE;
        ReleasedIsInterrupted breaks NotStuck in AT_MOST_ONCE;
        LapsedIsBusy breaks NotStuck in TAKE_OVER;
        BusyNamesNoTime breaks NotStuck in TAKE_OVER;
        BusyExtendsTheLease breaks RefusalIsInert in TAKE_OVER;
        CompletedIsGranted breaks Replayed in TAKE_OVER;
        RetiredIsReplayed breaks Replayed in TAKE_OVER;
        RetiredIsNotTold breaks AtMostOnce in AT_MOST_ONCE;
        LiveComparesNothing breaks Mismatch in REQUESTS;
        LapsedComparesNothing breaks Mismatch in REQUESTS;
        GaveUpComparesNothing breaks Mismatch in REQUESTS;
        ReleasedComparesNothing breaks Mismatch in REQUESTS;
        CompletedComparesNothing breaks Mismatch in REQUESTS;
        MismatchRefreshes breaks RefusalIsInert in REQUESTS;
    }
    RENEW: {
        RenewByReplaced breaks Fenced in TAKE_OVER;
        RenewByOlderGrant breaks Fenced in LATE_COPIES;
        RenewAfterLapseIsLost breaks OwnerIsHeard in TAKE_OVER;
        RenewShortens breaks DeadlineGrows in TAKE_OVER;
        RenewIsForgottenEarly breaks RememberedLongEnough in TAKE_OVER;
        RenewWritesNothing breaks GrantIsKept in TAKE_OVER;
        RenewRevivesGaveUp breaks EndedStaysEnded in TAKE_OVER;
        RenewRevivesReleased breaks EndedStaysEnded in TAKE_OVER;
        RenewRevivesCompleted breaks WriteOnce in TAKE_OVER;
        OlderProgressReplaces breaks ProgressStays in PROGRESS;
        OlderProgressIsLost breaks OwnerIsHeard in PROGRESS;
        PlainRenewErasesProgress breaks ProgressStays in PROGRESS;
    }
    COMPLETE: {
        CompleteByReplaced breaks Fenced in TAKE_OVER;
        CompleteByOlderGrant breaks Fenced in LATE_COPIES;
        CompleteAfterLapseIsLost breaks OwnerIsHeard in TAKE_OVER;
        CompleteAfterGivingUpIsLost breaks OwnerIsHeard in CONFUSED;
        CompleteAfterReleaseIsLost breaks OwnerIsHeard in CONFUSED;
        CompleteOverwrites breaks WriteOnce in OPERATOR;
        CompleteAgainExtends breaks WriteOnce in TAKE_OVER;
        ConflictIsApplied breaks AcknowledgedIsStored in OPERATOR;
        CompleteWritesNothing breaks AcknowledgedIsStored in TAKE_OVER;
        CompleteKeepsNoBytes breaks Replayed in TAKE_OVER;
        CompleteIsForgottenEarly breaks RememberedLongEnough in TAKE_OVER;
    }
    ABANDON: {
        ReleaseByReplaced breaks Fenced in TAKE_OVER;
        GiveUpByReplaced breaks Fenced in TAKE_OVER;
        ReleaseByOlderGrant breaks DoubtIsTold in LATE_COPIES;
        GiveUpByOlderGrant breaks Fenced in LATE_COPIES;
        ReleaseErasesResult breaks WriteOnce in CONFUSED;
        GiveUpErasesResult breaks WriteOnce in CONFUSED;
        ReleaseForgetsProgress breaks SavedIsNotReleased in PROGRESS;
        ReleaseRemoves breaks RemovedInTime in TAKE_OVER;
        ReleaseHasNoHold breaks RememberedLongEnough in TAKE_OVER;
        GiveUpReleases breaks AtMostOnce in AT_MOST_ONCE;
        GiveUpForgetsFingerprint breaks FingerprintStays in TAKE_OVER;
    }
    OPERATE: {
        SettleOverrulesOwner breaks OwnerIsSpared in OPERATOR;
        SettleIgnoresAttempt breaks Fenced in OPERATOR;
        SettleErasesResult breaks WriteOnce in OPERATOR;
        SettleChangesResult breaks WriteOnce in OPERATOR;
        EvictTakesLive breaks OwnerIsSpared in OPERATOR;
        EvictIgnoresAttempt breaks Fenced in OPERATOR;
    }
    PURGE: {
        PurgeTakesLive breaks OneOwner in SWEPT;
        PurgeTakesCompleted breaks AcknowledgedIsStored in SWEPT;
        PurgeIgnoresHold breaks RemovedInTime in SWEPT;
        PurgeSparesInterrupted breaks NotStuck in SWEPT;
    }
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static (Wrong, Promise, Setup)> {
    [CLAIM, RENEW, COMPLETE, ABANDON, OPERATE, PURGE].into_iter().flatten()
}
