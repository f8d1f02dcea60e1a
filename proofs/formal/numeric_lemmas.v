(* Comparisons of numbers by interval arithmetic. Interval computes with the integers of Coq's kernel, so these theorems
   also rest on the specification of those (PrimInt63, Uint63). *)

Require Import Reals.
From Interval Require Import Tactic.
Open Scope R_scope.

(* chernoff_multiplicative: the printed constants are not larger than the exponents at the edges of their ranges *)
Theorem printed_constants : 3 / 16 < ln 2 - 1 / 2 /\ 1 / 8 < (1 - ln 2) / 2.
Proof. split; interval with (i_prec 40). Qed.

(* token_choice_published: the exceptional strip for C >= 2 *)
Theorem strip_many : exp (4 * (3 / 10) * (exp (4 / 5) / 5) ^ 2) < 3 / 10 * exp 1 * ln 5.
Proof. interval with (i_prec 40). Qed.
