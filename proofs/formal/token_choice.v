(* N1 over the rationals: the success rate of token choice in closed form, for all s, C and every probability p.

   The binomial mass is defined by what a sum of independent indicators is: one more trial succeeds with probability p.
   Nothing else is assumed; every theorem here is closed under the global context. *)

Require Import QArith Qfield.
Open Scope Q_scope.

(* P(Bin(m, p) = k) *)
Fixpoint mass (p : Q) (m k : nat) : Q :=
  match m, k with
  | O, O => 1
  | O, S _ => 0
  | S m', O => (1 - p) * mass p m' O
  | S m', S k' => p * mass p m' k' + (1 - p) * mass p m' (S k')
  end.

(* the sum of f over 0 .. count-1 *)
Fixpoint sum (f : nat -> Q) (count : nat) : Q :=
  match count with O => 0 | S n => sum f n + f n end.

(* P(Bin(m, p) <= c - 1) *)
Definition below (p : Q) (m c : nat) : Q := sum (mass p m) c.

Definition num (n : nat) : Q := inject_Z (Z.of_nat n).

Lemma num_S : forall n, num (S n) == num n + 1.
Proof. intros n. unfold num. rewrite Nat2Z.inj_succ, <- Z.add_1_r, inject_Z_plus. reflexivity. Qed.

Lemma num_O : num O == 0.
Proof. reflexivity. Qed.

Lemma below_S : forall p m c, below p m (S c) == below p m c + mass p m c.
Proof. reflexivity. Qed.

(* F(m+1, C+1) = F(m, C+1) - p b(m, C) *)
Theorem pascal : forall p m c, below p (S m) (S c) == below p m (S c) - p * mass p m c.
Proof.
  intros p m c. induction c as [|c IH].
  - unfold below. simpl. ring.
  - rewrite below_S, IH, (below_S p m (S c)). simpl mass. ring.
Qed.

(* (k+1) b(m+1, k+1) = (m+1) p b(m, k) *)
Theorem size_bias : forall p m k, num (S k) * mass p (S m) (S k) == num (S m) * p * mass p m k.
Proof.
  intros p m. induction m as [|m IH]; intros k.
  - destruct k; simpl mass; rewrite !num_S, ?num_O; ring.
  - change (mass p (S (S m)) (S k)) with (p * mass p (S m) k + (1 - p) * mass p (S m) (S k)).
    assert (split : num (S k) * (p * mass p (S m) k + (1 - p) * mass p (S m) (S k)) ==
      num (S k) * p * mass p (S m) k + (1 - p) * (num (S k) * mass p (S m) (S k))) by ring.
    rewrite split, IH. clear split.
    destruct k as [|k].
    + simpl mass. rewrite !num_S, ?num_O. ring.
    + assert (first : num (S (S k)) * p * mass p (S m) (S k) ==
        p * (num (S k) * mass p (S m) (S k)) + p * mass p (S m) (S k)) by (rewrite (num_S (S k)); ring).
      rewrite first, IH. simpl mass. rewrite !num_S. ring.
Qed.

Lemma none_below_empty : forall p c, below p 0 (S c) == 1.
Proof.
  intros p c. induction c as [|c IH].
  - unfold below. simpl. ring.
  - rewrite below_S, IH. simpl. ring.
Qed.

Theorem masses_sum_to_one : forall p m, below p m (S m) == 1.
Proof.
  assert (more : forall p m c, (m <= c)%nat -> below p m (S c) == 1 /\ mass p m (S c) == 0).
  { intros p m. induction m as [|m IH]; intros c le.
    - split; [apply none_below_empty | reflexivity].
    - destruct c as [|c]; [inversion le|]. apply le_S_n in le. destruct (IH c le) as [one zero].
      assert (le' : (m <= S c)%nat) by (apply le_S, le). destruct (IH (S c) le') as [one' zero'].
      split.
      + rewrite pascal, one', zero. ring.
      + simpl mass. rewrite zero, zero'. ring. }
  intros p m. apply more, le_n.
Qed.

(* p times the sum over positions: no division, so no hypothesis *)
Lemma closed_form_times_p : forall p C s,
  p * sum (fun m => below p m C) s == p * num s * below p s C + num C * (1 - below p (S s) (S C)).
Proof.
  intros p C s. induction s as [|s IH].
  - rewrite pascal, none_below_empty. destruct C as [|C]; simpl; rewrite ?num_O; ring.
  - simpl sum. rewrite Qmult_plus_distr_r, IH, (pascal p (S s) C). destruct C as [|C].
    + rewrite num_O. unfold below. simpl sum. ring.
    + rewrite (pascal p s C).
      assert (key : num (S C) * (1 - (below p (S s) (S (S C)) - p * mass p (S s) (S C))) ==
        num (S C) * (1 - below p (S s) (S (S C))) + p * (num (S C) * mass p (S s) (S C))) by ring.
      rewrite key, size_bias, (num_S s). ring.
Qed.

(* N1: the mean over the s positions of P(fewer than C candidates before), times the hit rate *)
Theorem success_rate_of_token_choice : forall hit p C s, ~ p == 0 ->
  hit / num (S s) * sum (fun m => below p m C) (S s) ==
  hit * (below p (S s) C + num C / (p * num (S s)) * (1 - below p (S (S s)) (S C))).
Proof.
  intros hit p C s nonzero.
  assert (positive : ~ num (S s) == 0) by (unfold num, Qeq; simpl; discriminate).
  apply (Qmult_inj_l _ _ (p * num (S s))).
  - intros zero. apply Qmult_integral in zero. tauto.
  - transitivity (hit * (p * sum (fun m => below p m C) (S s))).
    + field. exact positive.
    + rewrite closed_form_times_p. field. tauto.
Qed.
