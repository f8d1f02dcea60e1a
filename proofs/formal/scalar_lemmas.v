(* Scalar inequalities and identities that certificates of the claims rest on, for all values of their variables. *)

Require Import Reals Lra Psatz.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

(* From 0 at 0 and a non-negative slope: one rung of a ladder. *)
Lemma rises : forall (f slope : R -> R) (end_ : R),
  (forall x, 0 <= x < end_ -> is_derive f x (slope x)) -> (forall x, 0 <= x < end_ -> 0 <= slope x) -> 0 <= f 0 ->
  forall x, 0 <= x < end_ -> 0 <= f x.
Proof.
  intros f slope end_ derivative nonnegative start x [x0 x1].
  destruct (MVT_gen f 0 x slope) as [c [between value]].
  - intros y [y0 y1]. rewrite Rmin_left, Rmax_right in *; trivial. apply derivative. lra.
  - intros y [y0 y1]. rewrite Rmin_left in y0 by trivial. rewrite Rmax_right in y1 by trivial.
    apply continuity_pt_filterlim, (ex_derive_continuous f y). exists (slope y). apply derivative. lra.
  - rewrite Rmin_left, Rmax_right in between by trivial.
    assert (0 <= slope c * (x - 0)) by (apply Rmult_le_pos; [apply nonnegative|]; lra). lra.
Qed.

(* cap_bounds: the exponential bound of a cap *)
Theorem logarithm_above_quotient : forall u, 0 <= u < 1 -> 2 * u / (2 - u) <= - ln (1 - u).
Proof.
  intros u range. apply Rminus_le_0.
  apply (rises (fun v => - ln (1 - v) - 2 * v / (2 - v)) (fun v => v ^ 2 / ((1 - v) * (2 - v) ^ 2)) 1); trivial.
  - intros v [v0 v1]. auto_derive; [repeat split; lra|]. simpl. field. lra.
  - intros v [v0 v1]. apply Rmult_le_pos; [apply pow2_ge_0|].
    apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; [lra | apply pow_lt; lra].
  - cbv beta. rewrite !Rminus_0_r, ln_1. lra.
Qed.

(* chernoff_multiplicative: Bernstein's form of the upper tail's exponent *)
Theorem bernstein : forall x, 0 <= x -> 3 * x ^ 2 / (6 + 2 * x) <= (1 + x) * ln (1 + x) - x.
Proof.
  intros x x0. apply Rminus_le_0.
  apply (rises (fun v => (1 + v) * ln (1 + v) - v - 3 * v ^ 2 / (6 + 2 * v))
    (fun v => ln (1 + v) - 3 * v * (v + 6) / (2 * (v + 3) ^ 2)) (x + 1)); [| | |lra].
  - intros v [v0 v1]. auto_derive; [repeat split; lra|]. simpl. field. lra.
  - intros y [y0 y1].
    apply (rises (fun v => ln (1 + v) - 3 * v * (v + 6) / (2 * (v + 3) ^ 2))
      (fun v => v ^ 2 * (v + 9) / ((1 + v) * (v + 3) ^ 3)) (x + 1)); [| | |lra].
    + intros v [v0 v1]. auto_derive; [repeat split; try lra; apply Rgt_not_eq; nra|]. simpl. field. lra.
    + intros v [v0 v1]. apply Rmult_le_pos; [apply Rmult_le_pos; [apply pow2_ge_0 | lra]|].
      apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; [lra | apply pow_lt; lra].
    + cbv beta. rewrite Rplus_0_r, ln_1. right. field.
  - cbv beta. rewrite Rplus_0_r, ln_1. right. field.
Qed.

(* chernoff_multiplicative: the quadratic form of the lower tail's exponent *)
Theorem lower_tail_quadratic : forall x, 0 <= x < 1 -> x ^ 2 / 2 <= (1 - x) * ln (1 - x) + x.
Proof.
  intros x range. apply Rminus_le_0.
  apply (rises (fun v => (1 - v) * ln (1 - v) + v - v ^ 2 / 2) (fun v => - ln (1 - v) - v) 1); trivial.
  - intros v [v0 v1]. auto_derive; [lra|]. simpl. unfold Rminus. field. lra.
  - intros y range'.
    apply (rises (fun v => - ln (1 - v) - v) (fun v => v / (1 - v)) 1); trivial.
    + intros v [v0 v1]. auto_derive; [lra|]. simpl. field. lra.
    + intros v [v0 v1]. apply Rmult_le_pos; [lra|]. apply Rlt_le, Rinv_0_lt_compat. lra.
    + cbv beta. rewrite !Rminus_0_r, ln_1. lra.
  - cbv beta. rewrite !Rminus_0_r, ln_1. lra.
Qed.

(* token_choice_poisson: λ (1 - bound) >= 0 at s = C = 1, where the bound is e^-λ + (1 - e^-λ - λ e^-λ)/λ *)
Theorem poisson_bound_at_one : forall x, 0 <= x -> 0 <= x - x * exp (- x) - (1 - exp (- x) - x * exp (- x)).
Proof.
  intros x x0.
  apply (rises (fun v => v - v * exp (- v) - (1 - exp (- v) - v * exp (- v))) (fun v => 1 - exp (- v)) (x + 1));
    [| | |lra].
  - intros v _. auto_derive; trivial. ring.
  - intros v [v0 v1].
    apply (rises (fun w => 1 - exp (- w)) (fun w => exp (- w)) (x + 1)); [| | |lra].
    + intros w _. auto_derive; trivial. ring.
    + intros w _. apply Rlt_le, exp_pos.
    + cbv beta. rewrite !Ropp_0, exp_0. lra.
  - cbv beta. rewrite !Ropp_0, exp_0. lra.
Qed.

(* token_choice_published: where the printed lower bound's threshold and exceptional strip come from *)
Theorem threshold : forall c, ln (5 / 4) <= c <-> 1 / 5 <= 1 - exp (- c).
Proof.
  assert (value : exp (- ln (5 / 4)) = 4 / 5) by (rewrite exp_Ropp, exp_ln by lra; lra).
  intros c. split; intros h.
  - assert (exp (- c) <= exp (- ln (5 / 4))) by (destruct h as [h|<-]; [left; apply exp_increasing; lra | right; trivial]).
    lra.
  - apply Rnot_lt_le. intros less.
    assert (exp (- ln (5 / 4)) < exp (- c)) by (apply exp_increasing; lra). lra.
Qed.

Theorem strip_one : exp (- (1 / 5 + 3 / 10 * (exp (4 / 5) / 5))) < 4 / 5.
Proof.
  pose proof (exp_ineq1_le (4 / 5)) as e. set (y := 1 / 5 + 3 / 10 * (exp (4 / 5) / 5)).
  assert (large : 1 / 4 < y) by (unfold y; lra). pose proof (exp_ineq1_le y) as above.
  rewrite exp_Ropp. apply (Rmult_lt_reg_r (exp y)); [lra|]. rewrite Rinv_l; lra.
Qed.

Theorem largest_value_of_z_exp : forall z, z * exp (- z) <= exp (- 1).
Proof.
  intros z. assert (bound : z <= exp (z - 1)) by (pose proof (exp_ineq1_le (z - 1)); lra).
  apply (Rle_trans _ (exp (z - 1) * exp (- z))).
  - apply Rmult_le_compat_r; [apply Rlt_le, exp_pos | exact bound].
  - right. rewrite <- exp_plus. f_equal. ring.
Qed.

(* token_choice_sharp: the root of a sum of squares *)
Theorem root_of_squares : forall v x, 0 <= v -> 0 <= x -> sqrt (v + x ^ 2) <= sqrt v + x.
Proof.
  intros v x v0 x0. pose proof (sqrt_pos v) as root0. apply Rsqr_incr_0_var; [|lra].
  rewrite Rsqr_sqrt by nra. unfold Rsqr. pose proof (sqrt_sqrt v v0). nra.
Qed.

(* expert_choice_unprocessed: |x| is at most half the mean of x^2/w and w *)
Theorem modulus_below_mean : forall x w, 0 < w -> Rabs x <= (x ^ 2 / w + w) / 2.
Proof.
  intros x w w0. apply Rminus_le_0.
  replace ((x ^ 2 / w + w) / 2 - Rabs x) with ((Rabs x - w) ^ 2 / (2 * w)).
  - apply Rmult_le_pos; [apply pow2_ge_0 | apply Rlt_le, Rinv_0_lt_compat; lra].
  - rewrite <- (pow2_abs x). field. lra.
Qed.

(* locmoe_capacity_bound: R(x) < 0 for every dimension from 7 on *)
Theorem slope_ratio_negative : forall d x, 7 <= d -> 0 <= x <= 1 -> (2 - x) * (5 * x - 2) - d * x ^ 3 < 0.
Proof.
  intros d x d7 [x0 x1].
  assert (cube : 0 <= x ^ 3) by (apply pow_le; trivial).
  assert (at_seven : (2 - x) * (5 * x - 2) - 7 * x ^ 3 < 0).
  { assert (square : 0 <= x * (x - 5 / 9) ^ 2) by (apply Rmult_le_pos; [trivial | apply pow2_ge_0]).
    pose proof (pow2_ge_0 (x - 5 / 9)). nra. }
  nra.
Qed.
